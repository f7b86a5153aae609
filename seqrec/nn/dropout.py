"""Dropout whose mask is drawn four times as fast as PyTorch's on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 1 << 16  # a probability is rounded to a multiple of 1 / LEVELS, and scaled by what it was rounded to


def dropout(x: Tensor, p: float) -> Tensor:
    """Return `x` with each value zeroed with probability `p` and the others scaled up to keep the mean.

    On a CPU one 64-bit draw decides four values; the draws come from PyTorch's global generator.

    Args:
        x: Any shape, floating.
        p: In [0, 1); 0 returns `x` itself.
    """
    if p == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    dropped = min(round(p * LEVELS), LEVELS - 1)
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    keep = draws.view(torch.int16)[: x.numel()] >= dropped - LEVELS // 2
    return x * torch.mul(keep.view(x.shape), LEVELS / (LEVELS - dropped)).to(x.dtype)


class Dropout(torch.nn.Module):
    """Dropout in training, nothing otherwise."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return dropout(x, self.p if self.training else 0.0)
