"""Show that memory grows with positions plus items, never with their product: how much a process takes at the most.

python scripts/benchmarks/memory.py softmax --num_items 1000000 --positions 8192 --width 128
python scripts/benchmarks/memory.py ranking --num_items 1500000 --num_users 1000000 --measured_users 4096 --width 128
"""

import time
from dataclasses import dataclass
from typing import Annotated

import torch
import tyro

from seqrec.basics.checks import list_flags, require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.formatting import duration, size
from seqrec.basics.progress import progress
from seqrec.evaluation.ranking import rank_targets
from seqrec.nn.losses import full_softmax
from seqrec.training.record import peak_memory


@dataclass(frozen=True, slots=True)
class Common:
    """Sizes that both ask for."""

    num_items: int = 1_000_000
    """Items of the catalogue."""
    width: int = 128
    """Numbers of a vector."""
    seed: int = 0
    """Of vectors and targets."""

    def __post_init__(self) -> None:
        require_at_least(1, self, *(name for name, _ in list_flags(self) if name != "seed"))


@dataclass(frozen=True, slots=True)
class Softmax(Common):
    """Training steps with the exact softmax over a large catalogue."""

    positions: int = 8192
    """Targets of a batch."""
    steps: int = 2
    """Optimiser steps; the first one makes Adam's state."""


@dataclass(frozen=True, slots=True)
class RankingMemory(Common):
    """Ranking users' targets among a large catalogue, and what all users would take."""

    num_users: int = 1_000_000
    """Users to project to."""
    measured_users: int = 4096
    """Users that are ranked here."""
    batch_size: int = 1024
    """Users at one time."""


def measure_softmax(config: Softmax) -> str:
    """Return what the steps took."""
    torch.manual_seed(config.seed)
    before = peak_memory()
    items = torch.nn.Parameter(torch.randn(config.num_items + 1, config.width) * config.width**-0.5)
    optimizer = torch.optim.AdamW([items], fused=True)
    seconds = []
    for _ in progress(range(config.steps), desc="steps"):
        hidden = torch.randn(config.positions, config.width, requires_grad=True)
        targets = torch.randint(1, config.num_items + 1, (config.positions,))
        start = time.perf_counter()
        full_softmax(hidden, items, targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    kept = 3 * items.numel() * items.element_size()  # weights and Adam's two averages
    most = peak_memory()
    return (
        f"softmax of {config.positions:,} positions over {config.num_items:,} items of width {config.width}: "
        f"{duration(min(seconds))} a step; at most {size(most)}, of which {size(kept)} weights and optimiser, "
        f"{size(before)} Python and PyTorch, {size(most - kept - before)} the step"
    )


def measure_ranking(config: RankingMemory) -> str:
    """Return what ranking took, and would take for all users."""
    torch.manual_seed(config.seed)
    before = peak_memory()
    items = torch.randn(config.num_items + 1, config.width)
    batches = range(0, config.measured_users, config.batch_size)
    after_first, start = 0, time.perf_counter()
    for first in progress(batches, desc="ranking", unit="batch"):
        users = torch.randn(min(config.batch_size, config.measured_users - first), config.width)
        rank_targets(users, items, torch.randint(1, config.num_items + 1, (len(users),)))
        after_first = after_first or peak_memory()
    seconds = time.perf_counter() - start
    held, whole = items.numel() * items.element_size(), seconds * config.num_users / config.measured_users
    return (
        f"{config.measured_users:,} users ranked among {config.num_items:,} items of width {config.width} in "
        f"{duration(seconds)}, so {config.num_users:,} in {duration(whole)}; "
        f"at most {size(after_first)} after the first {config.batch_size:,} users and {size(peak_memory())} after all, "
        f"of which {size(held)} item vectors and {size(before)} Python and PyTorch"
    )


def main(config: Softmax | RankingMemory) -> None:
    """Measure and print a sentence."""
    print(measure_softmax(config) if isinstance(config, Softmax) else measure_ranking(config))


Command = (
    Annotated[Softmax, tyro.conf.subcommand("softmax")] | Annotated[RankingMemory, tyro.conf.subcommand("ranking")]
)

if __name__ == "__main__":
    run_command(main, Command)
