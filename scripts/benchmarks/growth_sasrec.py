"""Measure how time and memory grow with the catalogue, with the width and with the events, and draw it.

python scripts/benchmarks/growth_sasrec.py
python scripts/benchmarks/growth_sasrec.py --items 1000 10000 --widths 32 64 --events 100000

A training step is SASRec's with the softmax over all items: 2 blocks, 128 histories of 20 random events, forward,
backward and AdamW; ranking is of 128 users. Preparing reads a Parquet file of random events and counts the card. Each
point is a process of its own, whose memory counts from what it held before.
"""

import io
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from seqrec.basics.checks import require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.files import write_atomically, write_json
from seqrec.basics.formatting import duration, size
from seqrec.basics.paths import ROOT
from seqrec.basics.progress import progress
from seqrec.comparison.style import COLOURS

LENGTH, USERS = 20, 128


@dataclass(frozen=True, slots=True)
class Config:
    """Measure training, ranking and preparing at growing sizes."""

    items: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    """Items of the catalogue, at width 64."""
    widths: tuple[int, ...] = (32, 64, 128, 256)
    """Widths of the model, over 10,000 items."""
    events: tuple[int, ...] = (100_000, 1_000_000, 10_000_000, 30_000_000)
    """Events to prepare."""
    repeats: int = 3
    """Steps and rankings, of which the fastest counts; one more is not counted."""
    output_dir: Path = ROOT / "runs" / "benchmark"
    """Where growth.png and growth.json go."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "repeats")
        for name in ("items", "widths", "events"):
            if len(getattr(self, name)) < 2 or min(getattr(self, name)) < 1:
                raise UserError(f"--{name} must be two sizes or more, each at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one piece of work takes."""

    seconds: float
    memory: int
    """Bytes at the most, without what the process held before."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Costs of one piece of work at growing sizes."""

    work: str
    sizes: tuple[int, ...]
    costs: list[Cost]

    def slope(self, what: str) -> float:
        """Return the power with which seconds or memory grew over the two largest sizes; 1 is proportional."""
        few, many = (getattr(cost, what) for cost in self.costs[-2:])
        return log(max(many, 1e-9) / max(few, 1e-9)) / log(self.sizes[-1] / self.sizes[-2])


def train_and_rank(num_items: int, width: int, repeats: int) -> dict[str, Cost]:
    """Return the costs of a training step and of ranking, in this process, which is to have done nothing else."""
    import torch

    from SASRec.model import SASRecConfig
    from SASRec.module import SASRecModule
    from SASRec.options import Config as FamilyConfig
    from seqrec.data.batches import RowSampler
    from seqrec.data.dataset import Histories
    from seqrec.evaluation.ranking import rank_targets
    from seqrec.training.record import peak_memory

    drawn = np.random.default_rng(0).integers(1, num_items + 1, (USERS, LENGTH + 1)).astype(np.int32)
    starts = np.arange(USERS) * (LENGTH + 1)
    histories = Histories(drawn.ravel(), np.arange(USERS), starts, starts + LENGTH + 1)
    config = FamilyConfig(model=SASRecConfig(hidden_units=width, maxlen=LENGTH))
    torch.manual_seed(0)
    before = peak_memory()
    module = SASRecModule(config, num_items, None)
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    data = SASRecModule.training_data(config, histories, num_items)
    (key,) = RowSampler(data.lengths, batch_size=USERS, shuffle=False)
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3, fused=True)
    targets = torch.from_numpy(histories.items[histories.ends - 1].astype(np.int64))

    def step() -> None:
        module.training_step(data[key]).backward()
        optimizer.step()
        optimizer.zero_grad()

    @torch.inference_mode()
    def rank() -> None:
        users = module.user_vectors(module.make_inputs(histories, np.arange(USERS)))
        rank_targets(users, module.item_vectors(), targets)

    # Ranking first: it takes less memory, and the most that the process has held is what is read.
    return {
        name: Cost(_fastest(work, repeats), peak_memory() - before)
        for name, work in {"ranking 128 users": rank, "a training step": step}.items()
    }


def _fastest(work: Callable[[], None], repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def prepare(num_events: int) -> dict[str, Cost]:
    """Return the cost of preparing events, in this process, which is to have done nothing else."""
    from scripts.benchmarks.memory import EventsMemory, prepare_events
    from seqrec.training.record import peak_memory

    before = peak_memory()
    _, seconds = prepare_events(EventsMemory(num_events=num_events, parts=1))
    return {"preparing": Cost(seconds, peak_memory() - before)}


def measure(
    work: Callable[..., dict[str, Cost]], sizes: Sequence[int], arguments: list[tuple[int, ...]]
) -> list[Curve]:
    """Return a curve for each piece of work, each point from a process of its own."""
    spawned = multiprocessing.get_context("spawn")
    found = []
    for given in progress(arguments, desc=work.__name__.replace("_", " "), unit="size"):
        with ProcessPoolExecutor(1, mp_context=spawned) as process:
            found.append(process.submit(work, *given).result())
    return [Curve(name, tuple(sizes), [costs[name] for costs in found]) for name in found[0]]


def draw(panels: dict[str, list[Curve]]) -> bytes:
    """Return a PNG: seconds above and memory below, both axes logarithmic, with the slope at each line's end."""
    figure = Figure(figsize=(9.6, 5.4), layout="constrained", facecolor="white")
    grid = figure.subplots(2, len(panels), squeeze=False)
    colours = (COLOURS["longformer"], COLOURS["pretrain"])
    for column, (title, curves) in enumerate(panels.items()):
        for row, (what, unit) in enumerate((("seconds", 1.0), ("memory", 2.0**30))):
            axes = grid[row, column]
            for curve, colour in zip(curves, colours, strict=False):
                values = [max(getattr(cost, what) / unit, 1e-6) for cost in curve.costs]
                axes.plot(curve.sizes, values, "o-", color=colour, ms=4, label=f"{curve.work}: {curve.slope(what):.2f}")
            axes.set(xscale="log", yscale="log", xticks=curves[0].sizes)
            axes.minorticks_off()
            axes.xaxis.set_major_formatter(FuncFormatter(_short))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8, frameon=False)
        grid[0, column].set_title(title, loc="left", fontsize=10, fontweight="bold")
        grid[1, column].set_xlabel(title, fontsize=9)
    grid[0, 0].set_ylabel("seconds", fontsize=9)
    grid[1, 0].set_ylabel("GiB", fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
    return file.getvalue()


def _short(value: float, _: Any) -> str:
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g} {name}"
    return f"{value:g}"


def main(config: Config) -> None:
    """Measure, print a line per curve, and write the picture and the figures."""
    panels: dict[str, list[Curve]] = {
        "items": measure(train_and_rank, config.items, [(n, 64, config.repeats) for n in config.items]),
        "width": measure(train_and_rank, config.widths, [(10_000, width, config.repeats) for width in config.widths]),
        "events": measure(prepare, config.events, [(count,) for count in config.events]),
    }
    for title, curves in panels.items():
        for curve in curves:
            points = ", ".join(
                f"{at:,}: {duration(cost.seconds) if cost.seconds >= 1 else f'{1000 * cost.seconds:.1f} ms'} and "
                f"{size(cost.memory)}"
                for at, cost in zip(curve.sizes, curve.costs, strict=True)
            )
            print(f"{curve.work} by {title}: {points}; at the end the power {curve.slope('seconds'):.2f} in time")
    figures: dict[str, Any] = {
        title: {curve.work: dict(zip(map(str, curve.sizes), map(asdict, curve.costs), strict=True)) for curve in curves}
        for title, curves in panels.items()
    }
    write_json(config.output_dir / "growth.json", figures)
    with write_atomically(config.output_dir / "growth.png") as file:
        file.write(draw(panels))
    print(f"picture  {config.output_dir / 'growth.png'}")


if __name__ == "__main__":
    run_command(main, Config)
