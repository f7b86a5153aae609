"""Two processes that split batches are to have the losses and the gradients of one."""

import importlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from seqrec.data.batches import BatchKey, RowSampler
from seqrec.nn.losses import LossOptions
from tests import forked
from tests.histories import as_histories, random_lists

Steps = Iterable[tuple[Any, Any]]
LENGTHS = [9, 4, 2, 7, 7, 3, 12, 5, 6, 2]
BATCH_SIZE = 9
"""Of ten rows, so that the second batch has one, and one of two processes has none of its own."""
LOSSES: list[dict[str, Any]] = [
    {"loss": "ce"},
    {"loss": "bce"},
    {"loss": "gbce", "num_negatives": 5},
    {"loss": "nce", "num_negatives": 5},
    {"loss": "sampled_softmax", "negatives": "in_batch"},
    *({"loss": "sampled_softmax", "negatives": n, "num_negatives": 5} for n in ("uniform", "popularity", "mixed")),
]


def split_batches(lengths: Any, rank: int, world_size: int) -> list[BatchKey]:
    """Return one process's keys of an epoch."""
    return list(RowSampler(lengths, batch_size=BATCH_SIZE, shuffle=True, seed=1, rank=rank, world_size=world_size))


def id_steps(rank: int, world_size: int, family: str) -> Steps:
    """Yield a module of an ID family without dropout, for each loss, and one process's share of each batch."""
    finetune = importlib.import_module(f"{family}.module")
    histories = as_histories(random_lists(LENGTHS))
    for options in LOSSES:
        config = finetune.Config(objective=LossOptions(**options))
        module_class = getattr(finetune, f"{family}Module")
        torch.manual_seed(0)
        module = module_class(config, 30, None).eval()
        train = module_class.training_data(config, histories, 30)
        for key in split_batches(train.lengths, rank, world_size):
            yield module, train[key]


def measure(steps: Steps) -> list[dict[str, Tensor]]:
    """Return each step's loss, gradients, and what it logs as a trainer keeps it: value times weight, and weight."""
    found: list[dict[str, Tensor]] = []

    def log(name: str, value: Tensor, *, batch_size: int, **_: Any) -> None:
        found[-1][name] = torch.stack([value.detach() * batch_size, torch.tensor(float(batch_size))])

    for module, batch in steps:
        found.append({})
        module.log = log
        module.zero_grad()
        loss = module.training_step(batch)
        loss.backward()
        found[-1]["loss"] = loss.detach()
        found[-1] |= {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    return found


def average_as_one_of_two(make: Callable[..., Steps], args: tuple[Any, ...], folder: Path) -> None:
    """Write what both processes have on average, as trainers average gradients."""
    rank = int(os.environ["LOCAL_RANK"])
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = measure(make(rank, 2, *args))
    for step in found:
        for name in sorted(step):
            dist.all_reduce(step[name])
            step[name] /= 2
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def assert_two_are_one(make: Callable[..., Steps], *args: Any, folder: Path) -> None:
    """Compare the steps of two processes with those of one.

    Args:
        make: Of a module that can be imported: from rank, number of processes and `args`, modules and their batches.
        args: What is passed on.
        folder: For files.
    """
    forked.run_pair(average_as_one_of_two, make, args, folder, folder=folder)
    alone = measure(make(0, 1, *args))
    for rank in range(2):
        pair = torch.load(folder / f"{rank}.pt", weights_only=True)
        assert len(pair) == len(alone) > 0
        for step, (both, one) in enumerate(zip(pair, alone, strict=True)):
            assert both.keys() == one.keys()
            torch.testing.assert_close(both["loss"], one["loss"], rtol=1e-5, atol=1e-6, msg=f"step {step}")
            logged = [name for name in one if name.startswith("train/")]
            assert "train/loss" in logged
            for name in logged:
                torch.testing.assert_close(both[name], one[name], rtol=1e-5, atol=1e-5, msg=f"step {step}, {name}")
            learned = one.keys() - {"loss", *logged}
            largest = max(float(one[name].abs().max()) for name in learned)
            for name in learned:
                off, scale = float((both[name] - one[name]).abs().max()), float(one[name].abs().max())
                # What is zero by symmetry, such as a key bias's gradient, is rounding on both sides.
                assert off <= 1e-3 * scale + 1e-6 * largest, f"step {step}, {name}: off by {off} of {scale}"
