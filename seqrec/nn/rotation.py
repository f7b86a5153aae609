"""Rotary embeddings: dot products of rotated vectors depend on differences of positions or times.

Shapes: T tokens, H heads, E width of a head.
Source: Su et al. (2021), section 3.2, https://arxiv.org/abs/2104.09864; here for times as well as positions.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

MINUTE, LONGEST = 60.0, 20 * 365.25 * 86400.0
"""Shortest and longest period of `turn_by_time`, in seconds."""


class Rotation(NamedTuple):
    """Cosines and sines of the rotation angles of the E / 2 planes, (T, E / 2) each."""

    cos: Tensor
    sin: Tensor

    def rows(self, index: Tensor) -> "Rotation":
        """Return the rotation of some tokens."""
        return Rotation(self.cos[index], self.sin[index])


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate (T, H, E) vectors; their halves are the two coordinates of E / 2 planes."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = rotation.cos[:, None], rotation.sin[:, None]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def turn_by_position(positions: Tensor, theta: float, width: int) -> Rotation:
    """Return the rotation of tokens by their (T,) positions, for heads of a width and with a base theta."""
    planes = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device)
    angles = positions[:, None] * theta ** (-planes / width)
    return Rotation(angles.cos(), angles.sin())


def turn_by_time(seconds: Tensor, width: int) -> Rotation:
    """Return the rotation of events by their times; the planes' periods run from a minute to twenty years.

    Args:
        seconds: (T,) int64 times; only differences matter.
        width: E, even.
    """
    exponents = torch.linspace(0, math.log(LONGEST / MINUTE), width // 2, dtype=torch.float64, device=seconds.device)
    periods = MINUTE * exponents.exp()
    angles = 2 * torch.pi * (seconds.double()[:, None] / periods).frac()
    return Rotation(angles.cos().float(), angles.sin().float())
