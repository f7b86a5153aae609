"""Time requests that read old events from a memory, beside requests that read whole histories.

    python scripts/benchmarks/persrec.py
    python scripts/benchmarks/persrec.py --model llama --batches 1

Models and histories are random: neither time nor the number of operations depends on what they hold. A request is
everything from a user's events to the user's vector, and with `ranking` also the scores of all items and the best ten.
Operations are counted as they run; the published formula counts every product of a dense matrix, also where nothing is
seen.
"""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from PerSRec.memory import CompressedHistories, compress_histories, old_events
from PerSRec.module import PerSRecModule
from PerSRec.options import Config as ModelConfig
from PerSRec.options import HistoryOptions, ModelOptions
from scripts.benchmarks.sides import processor
from seqrec.basics.checks import list_flags, require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.files import write_json
from seqrec.basics.formatting import align, amount, size
from seqrec.basics.paths import ROOT
from seqrec.basics.progress import progress
from seqrec.data.dataset import Histories

USERS = 256
"""Made-up users, whose turn comes one batch after another."""
KEPT_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The model, the histories and the requests."""

    model: Literal["hstu", "sasrec", "llama"] = "hstu"
    """Blocks, as in PerSRec/finetune.py."""
    old: int = 1024
    """Old events of a history."""
    recent: int = 256
    """Recent events."""
    tokens: int = 4
    """User tokens."""
    hidden_units: int = 64
    """Width."""
    n_layers: int = 4
    """Blocks."""
    n_heads: int = 4
    """Attention heads."""
    num_items: int = 100_000
    """Items that are ranked."""
    batches: tuple[int, ...] = (1, 64)
    """Users of a request."""
    repeats: int = 30
    """Requests of each kind."""
    threads: int = 1
    """Threads of each."""
    output_dir: Path = ROOT / "runs" / "benchmark"
    """Where the JSON file goes."""

    def __post_init__(self) -> None:
        require_at_least(1, self, *(name for name, value in list_flags(self) if type(value) is int))


class Side(NamedTuple):
    """One way to answer a request."""

    module: PerSRecModule
    history: Histories


def formula(width: int, layers: int, asked: int, seen: int) -> int:
    """Return HSTU's published count of operations: projections, and products of every query with every key."""
    return layers * (10 * asked * width**2 + 4 * asked * seen * width)


def make_module(config: Config, history: HistoryOptions) -> PerSRecModule:
    """Return a random model, the same every time."""
    torch.manual_seed(0)
    blocks = ModelOptions(
        model=config.model, hidden_units=config.hidden_units, n_layers=config.n_layers, n_heads=config.n_heads
    )
    return PerSRecModule(ModelConfig(history=history, model=blocks), config.num_items, None).eval()


def made_up_histories(config: Config) -> Histories:
    """Return histories of random items, all of one length."""
    length = config.old + config.recent
    items = np.random.default_rng(0).integers(1, config.num_items + 1, USERS * length, dtype=np.int32)
    starts = np.arange(USERS) * length
    return Histories(items, np.arange(USERS), starts, starts + length)


def make_sides(config: Config) -> dict[str, Side]:
    """Return the ways to answer: whole histories without and with tokens, recent events alone, and from a memory."""
    histories, length = made_up_histories(config), config.old + config.recent
    tokens = HistoryOptions(maxlen=length, number_of_user_tokens=config.tokens, pretrain_item_num=config.old)
    with_tokens, served = make_module(config, tokens), make_module(config, tokens)
    encoder, old = served.encoder, old_events(histories, tokens.window)
    arrays = compress_histories(encoder, served.embed, old, histories.starts)
    users = np.arange(USERS)
    ends = old.ends - old.starts
    served.memory = CompressedHistories(
        tokens.window, histories.items, histories.starts, arrays["memory"], None, users, ends
    )
    return {
        "whole history": Side(make_module(config, HistoryOptions(maxlen=length)), histories),
        "whole history, with tokens": Side(with_tokens, histories),
        "from the memory": Side(served, histories),
        "recent events alone": Side(make_module(config, HistoryOptions(maxlen=config.recent)), histories),
    }


@torch.no_grad()
def answer(side: Side, rows: np.ndarray[Any, Any], table: torch.Tensor | None = None) -> None:
    """Compute the vectors of users and, given the items', the best ten of each."""
    vectors = side.module.user_vectors(side.module.make_inputs(side.history, rows))
    if table is not None:
        (vectors @ table.T).topk(10)


@torch.no_grad()
def compress(side: Side, rows: np.ndarray[Any, Any]) -> None:
    """Compress the old events of users."""
    module = side.module
    old = old_events(side.history, module.config.history.window).select(rows)
    compress_histories(module.encoder, module.embed, old, side.history.starts[rows])


def count(work: Callable[[], object]) -> int:
    """Return the operations of some work, a multiplication and an addition being two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def measure(config: Config, batch: int, sides: dict[str, Side]) -> dict[str, dict[str, Any]]:
    """Return seconds and operations of each way, for requests of some users at a time."""
    drawn = np.random.default_rng(1)
    tables = {name: side.module.item_vectors().detach() for name, side in sides.items()}
    works: dict[str, Callable[[np.ndarray[Any, Any]], None]] = {
        **{name: partial(answer, side) for name, side in sides.items()},
        "compressing": partial(compress, sides["from the memory"]),
        **{f"{name}, ranking": partial(answer, side, table=tables[name]) for name, side in sides.items()},
    }

    operations: dict[str, int] = {}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in progress(range(config.repeats + 1), desc=f"{batch} at a time", unit="request"):
        for name, work in works.items():
            rows = drawn.choice(USERS, batch, replace=False)
            if not turn:  # the first one warms up
                operations[name] = count(partial(work, rows)) // batch
                continue
            start = time.perf_counter()
            work(rows)
            seconds[name].append(time.perf_counter() - start)
    return {
        name: {"seconds": seconds[name], "median": statistics.median(seconds[name]), "flops": operations[name]}
        for name in works
    }


def main(config: Config) -> None:
    """Measure, print and write the JSON file."""
    torch.set_num_threads(config.threads)
    sides = make_sides(config)
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for batch in config.batches:
        found[batch] = measure(config, batch, sides)
    kept = sides["from the memory"].module.encoder.memory_shape
    numbers = int(np.prod(kept))
    for batch, rows in found.items():
        whole = rows["whole history"]["median"]
        ranked = rows["whole history, ranking"]["median"]
        cells = []
        for name in (*sides, "compressing"):
            row, beside = rows[name], rows.get(f"{name}, ranking")
            cells.append(
                [
                    name,
                    amount(row["flops"]),
                    f"{1e3 * row['median']:.2f} ms",
                    f"{whole / row['median']:.1f}",
                    "" if beside is None else f"{1e3 * beside['median']:.2f} ms",
                    "" if beside is None else f"{ranked / beside['median']:.1f}",
                ]
            )
        header = [f"{batch} at a time", "operations a user", "encoding", "times faster", "and ranking", "times faster"]
        print(align(header, cells))
        saved = whole - rows["from the memory"]["median"]
        print(
            f"compressing pays after {rows['compressing']['median'] / saved:.2f} requests per refresh\n"
            if saved > 0
            else "a request from the memory is no faster\n"
        )
    print(
        f"a user's memory: {' x '.join(map(str, kept))} numbers, "
        + ", ".join(f"{size(numbers * each)} as {kind}" for kind, each in KEPT_BYTES.items())
    )
    if config.model == "hstu":
        D, L, S = config.hidden_units, config.n_layers, config.old + config.recent
        full, serve = formula(D, L, S, S), formula(D, L, config.recent, config.recent + config.tokens)
        print(f"by the published formula {amount(full)} and {amount(serve)} operations, {full / serve:.1f} times fewer")
    path = config.output_dir / f"serving-{config.model}.json"
    machine = {"processor": processor(), "platform": platform.platform()}
    settings = asdict(config) | {"output_dir": str(config.output_dir)}
    result = {"date": time.strftime("%Y-%m-%d %H:%M"), "machine": machine, "settings": settings, "batches": found}
    write_json(path, result | {"memory_numbers": numbers})
    print(f"JSON  {path}")


if __name__ == "__main__":
    run_command(main, Config)
