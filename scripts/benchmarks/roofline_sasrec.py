"""Compare a training step of SASRec with the time that its products of matrices take alone: how far is the processor?

python scripts/benchmarks/roofline_sasrec.py --dataset amazon-scientific
python scripts/benchmarks/roofline_sasrec.py --dataset ml-1m --maxlen 200 --threads 1

The floor is what `torch.mm` and `torch.bmm` need for the step's products: three for the softmax over all items, in the
blocks of rows in which they are fastest, three for each linear layer and six for each attention. Exponentials, norms,
dropout and the optimiser come on top. A step that reaches 70 % leaves no implementation of these equations, in this
precision and with these products, more than 1.4 times as fast.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median

import torch
from torch import nn

from SASRec.data import TrainBatch
from SASRec.model import SASRecConfig
from SASRec.module import SASRecModule
from SASRec.options import Config as FamilyConfig
from seqrec.basics.checks import list_flags, require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.progress import progress
from seqrec.data.batches import RowSampler
from seqrec.data.dataset import find_dataset
from seqrec.data.splits import leave_one_out

ROWS = (64, 128, 256, 512, 1024)
"""Rows of a block of the softmax that are tried."""
WARM_UP = 5
"""Steps before the clock."""
SHAPES = 3
"""Batches whose attention is measured, all shapes of which differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Measure how much of a training step its products of matrices take."""

    dataset: str | None = None
    """Name of a prepared dataset in data/."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere."""
    maxlen: int = 50
    """Events of a history that the model reads."""
    hidden_units: int = 64
    """Width of the model."""
    batch_size: int = 128
    """Users per step."""
    steps: int = 20
    """Steps that are timed, after five that are not."""
    repeats: int = 20
    """Turns of each product, of which the fastest counts."""
    threads: int = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    """Threads; by default OMP_NUM_THREADS, else one per core."""
    seed: int = 42
    """Of weights and batches."""

    def __post_init__(self) -> None:
        require_at_least(1, self, *(name for name, value in list_flags(self) if type(value) is int and name != "seed"))


def fastest(work: Callable[[], object], repeats: int) -> float:
    """Return the fewest seconds of some turns."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def products(rows: int, width: int, columns: int, dtype: torch.dtype, repeats: int) -> float:
    """Return the seconds of (rows, width) @ (width, columns) and of the two products of its gradients."""
    left, right = torch.randn(rows, width, dtype=dtype), torch.randn(columns, width, dtype=dtype)
    out = torch.randn(rows, columns, dtype=dtype)
    return (
        fastest(lambda: left @ right.T, repeats)
        + fastest(lambda: out @ right, repeats)
        + fastest(lambda: out.T @ left, repeats)
    )


def attention_products(batch: TrainBatch, model: SASRecConfig, dtype: torch.dtype, repeats: int) -> float:
    """Return the seconds of one block's products of queries, keys and values, and of their gradients."""
    seconds = 0.0
    for histories, length in (rectangle.shape for rectangle in batch.layout.rectangles):
        heads, width = histories * model.num_heads, model.hidden_units // model.num_heads
        states = torch.randn(heads, length, width, dtype=dtype)
        weights = torch.randn(heads, length, length, dtype=dtype)
        # Forward scores and means; backward, from two gradients each: these products have the same sizes.
        pairs = ((states, states.transpose(1, 2)), (weights, states), (weights.transpose(1, 2), states))
        seconds += sum(2 * fastest(partial(torch.bmm, *pair), repeats) for pair in pairs)
    return seconds


def floor(module: SASRecModule, batches: list[TrainBatch], dtype: torch.dtype, repeats: int) -> dict[str, float]:
    """Return the mean seconds of a batch's products, of the softmax, of the linear layers and of attention."""
    events, targets = (round(fmean(len(getattr(batch, name)) for batch in batches)) for name in ("items", "targets"))
    vectors, model = module.item_vectors(), module.config.model
    num_items, width = len(vectors) - 1, vectors.shape[1]
    softmax = min(targets / rows * products(rows, width, num_items, dtype, repeats) for rows in ROWS)
    layers = [part for part in module.modules() if isinstance(part, nn.Linear)]
    linear = sum(products(events, part.in_features, part.out_features, dtype, repeats) for part in layers)
    some = batches[:SHAPES]
    attention = fmean(attention_products(batch, model, dtype, repeats) for batch in some) * model.num_blocks
    return {"softmax": softmax, "linear layers": linear, "attention": attention}


def measure(config: Config, precision: torch.dtype) -> tuple[float, dict[str, float]]:
    """Return the median seconds of a step, and the mean ones of its products."""
    dataset = find_dataset(config.dataset, config.data_path)
    family = FamilyConfig(model=SASRecConfig(hidden_units=config.hidden_units, maxlen=config.maxlen))
    torch.manual_seed(config.seed)
    module = SASRecModule(family, dataset.num_items, None)
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    data = SASRecModule.training_data(family, leave_one_out(dataset).train, dataset.num_items)
    keys = list(RowSampler(data.lengths, batch_size=config.batch_size, shuffle=True, seed=config.seed))
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3, fused=True)
    batches, seconds = [], []
    for number in progress(range(config.steps + WARM_UP), desc=str(precision).removeprefix("torch."), unit="step"):
        start = time.perf_counter()
        batch = data[keys[number % len(keys)]]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = module.training_step(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - start)
            batches.append(batch)
    return median(seconds), floor(module, batches, precision, config.repeats)


def main(config: Config) -> None:
    """Measure and print a line for each precision."""
    torch.set_num_threads(config.threads)
    for precision in (torch.float32, torch.bfloat16):
        step, parts = measure(config, precision)
        told = ", ".join(f"{name} {1000 * seconds:.1f}" for name, seconds in parts.items())
        print(
            f"{str(precision).removeprefix('torch.'):<9} a step {1000 * step:.1f} ms, its products {told} ms: "
            f"{sum(parts.values()) / step:.0%} of the step"
        )


if __name__ == "__main__":
    run_command(main, Config)
