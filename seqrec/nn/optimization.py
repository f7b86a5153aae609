"""Weight decay by kind of parameter, and learning rate schedules."""

import logging
import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # Lightning takes seconds, and a command's --help reads Schedule
    import pytorch_lightning as lightning

log = logging.getLogger(__name__)
Schedule = Literal["constant", "linear", "cosine"]
"""What follows the warm-up: nothing, or a fall to zero at the last epoch, along a line or half a cosine."""


def schedule_rate(
    optimizer: torch.optim.Optimizer,
    module: "lightning.LightningModule",
    warmup_steps: float,
    schedule: Schedule = "linear",
    first_epochs: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Return an optimiser with its schedule, in the form that `configure_optimizers` returns.

    Args:
        optimizer: With one or more groups of parameters.
        module: In a Trainer.
        warmup_steps: Steps of linear warm-up, or, below 1, their share of all steps.
        schedule: What follows.
        first_epochs: Epoch, from 0, in which each group starts to learn; 0 for all if not given.
    """
    total = int(module.trainer.estimated_stepping_batches)
    warmup = int(warmup_steps if warmup_steps >= 1 else warmup_steps * total)
    if warmup > total // 2:
        log.warning("--warmup_steps %s is more than half of the %d steps: rates rise for half", warmup_steps, total)
    per_epoch = total // (module.trainer.max_epochs or 1)
    factor = learning_rate_factor(warmup, total, schedule)

    def begin(first: int) -> Callable[[int], float]:
        return lambda step: 0.0 if step < first else factor(step)

    factors = [begin(epoch * per_epoch) for epoch in first_epochs or [0] * len(optimizer.param_groups)]
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}


def decay_weights(module: nn.Module, weight_decay: float, leave_out: Collection[Tensor] = ()) -> list[dict[str, Any]]:
    """Return the trainable parameters as two groups: weights, which decay, and biases and norms, which do not.

    Args:
        module: With the parameters.
        weight_decay: Decoupled weight decay of the first group.
        leave_out: Parameters of other groups.
    """
    apart = set(map(id, leave_out))
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and id(parameter) not in apart:
            groups[parameter.dim() > 1 and not name.endswith("bias")].append(parameter)
    found = zip((groups[True], groups[False]), (weight_decay, 0.0), strict=True)
    return [{"params": parameters, "weight_decay": decay} for parameters, decay in found if parameters]


def can_fuse(module: "lightning.LightningModule") -> bool:
    """Return whether the optimiser may be fused: Lightning clips no gradients for it under mixed precision."""
    return not module.trainer.gradient_clip_val or "mixed" not in str(module.trainer.precision)


def learning_rate_factor(warmup: int, total: int, schedule: Schedule = "linear") -> Callable[[int], float]:
    """Return the rate's factor by step: a linear rise to 1 at `warmup`, then constant or a fall to 0 at `total`.

    Args:
        warmup: Steps; at most half of all.
        total: Steps of the whole run, were it not stopped early.
        schedule: What follows the rise.
    """
    warmup = min(warmup, total // 2)

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        if schedule == "constant":
            return 1.0
        left = max(0.0, (total - step) / max(1, total - warmup))
        return left if schedule == "linear" else (1 - math.cos(math.pi * left)) / 2

    return factor
