"""How the learning rate goes over a run."""

from collections.abc import Callable
from typing import Any, Literal

import pytorch_lightning as pl
import torch

Schedule = Literal["constant", "linear"]


def schedule_rate(
    optimizer: torch.optim.Optimizer, module: pl.LightningModule, warmup_steps: int, schedule: Schedule = "linear"
) -> dict[str, Any]:
    """Return what a module's `configure_optimizers` is to return: an optimiser, and its rates' factor by step."""
    total = int(module.trainer.estimated_stepping_batches)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(warmup_steps, total, schedule))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}


def learning_rate_factor(warmup: int, total: int, schedule: Schedule = "linear") -> Callable[[int], float]:
    """Return the rate's factor by step: a linear rise to 1 at `warmup`, then constant or a linear fall to 0 at `total`.

    Args:
        warmup: Steps; at most half of all.
        total: Steps of the whole run, were it not stopped early.
        schedule: What follows the rise.
    """
    warmup = min(warmup, total // 2)

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        return 1.0 if schedule == "constant" else max(0.0, (total - step) / max(1, total - warmup))

    return factor
