"""Vectors turned by angles, so that dot products depend on differences. Shapes: T tokens, H heads, E width of a head.

Source: Su et al. (2021), section 3.2, https://arxiv.org/abs/2104.09864; here with times in place of positions, too.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

MINUTE, LONGEST = 60.0, 20 * 365.25 * 86400.0
"""Shortest and longest period of `turn_by_time`, in seconds."""


class Rotation(NamedTuple):
    """Cosines and sines of the angles that the E / 2 planes of each token's heads are turned by, (T, E / 2) each."""

    cos: Tensor
    sin: Tensor

    def rows(self, index: Tensor) -> "Rotation":
        """Return what some tokens are turned by."""
        return Rotation(self.cos[index], self.sin[index])


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Return (T, H, E) vectors, whose halves are the two coordinates of E / 2 planes, turned."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = rotation.cos[:, None], rotation.sin[:, None]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def turn_by_position(positions: Tensor, theta: float, width: int) -> Rotation:
    """Return the rotation of tokens by their (T,) positions, for heads of a width and with a base theta."""
    planes = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device)
    angles = positions[:, None] * theta ** (-planes / width)
    return Rotation(angles.cos(), angles.sin())


def turn_by_time(seconds: Tensor, width: int) -> Rotation:
    """Return the rotation of events by when they were: planes turn once a minute to once in twenty years.

    Args:
        seconds: (T,) int64, from any moment; only differences matter.
        width: E, even.
    """
    exponents = torch.linspace(0, math.log(LONGEST / MINUTE), width // 2, dtype=torch.float64, device=seconds.device)
    periods = MINUTE * exponents.exp()
    angles = 2 * torch.pi * (seconds.double()[:, None] / periods).frac()
    return Rotation(angles.cos().float(), angles.sin().float())
