"""AdamW with a linear rise and fall of the learning rate, for pretraining and finetuning."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor


def configure_adamw(module: pl.LightningModule, lr: float, weight_decay: float, warmup_steps: int) -> dict[str, Any]:
    """Return what a module's `configure_optimizers` is to return: fused AdamW, and its rate by step.

    Args:
        module: Everything in it that wants a gradient learns.
        lr: Highest learning rate.
        weight_decay: Decoupled, for weights that are no bias and no norm.
        warmup_steps: Steps in which the rate rises; then it falls linearly to zero at the last step.
    """
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for parameter in module.parameters():
        if parameter.requires_grad:
            groups[parameter.dim() > 1].append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": groups[True], "weight_decay": weight_decay}, {"params": groups[False], "weight_decay": 0.0}],
        lr,
        fused=True,
    )
    total = int(module.trainer.estimated_stepping_batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(warmup_steps, total))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def learning_rate_factor(warmup: int, total: int) -> Callable[[int], float]:
    """Return the learning rate's factor by step: a linear rise to 1 at `warmup`, a linear fall to 0 at `total`."""
    warmup = min(warmup, total // 2)

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        return max(0.0, (total - step) / max(1, total - warmup))

    return factor
