"""What the clock says of candidates: how long they have been there, and how they were taken up until now.

Shapes: F numbers of a candidate.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from LSVCR.options import Timing
from seqrec.data.activity import Activity

SPANS = (600, 3600, 6 * 3600, 86_400)
"""Seconds before the moment in which events are counted, beside all before it."""
COUNTS: dict[Timing, int] = {"age": 1, "heat": 3 + len(SPANS)}
"""F."""


@dataclass(frozen=True, slots=True)
class Clock:
    """When candidates appeared, and when anybody took them up."""

    published: NDArray[np.int64]
    """(N+1,) seconds."""
    activity: Activity | None
    """None where age alone counts."""
    end: int
    """Seconds, just after all that is known: a later moment counts as this one."""

    def read(self, candidates: NDArray[np.int64], times: NDArray[np.int64]) -> Tensor:
        """Return (..., F) float32 of (...) candidates at (...) moments; nothing from a moment on is known.

        Logarithms of seconds, over 10: age, then time since the candidate was last taken up, which is its age if it
        never was. Logarithms of counts: before the moment, and in each of SPANS.
        """
        times = np.minimum(times, self.end)
        ages = times - self.published[candidates]
        found = [_log(ages) / 10]
        if self.activity is not None:
            last = self.activity.last_before(candidates, times)
            counts = [self.activity.count_before(candidates, times)]
            counts += self.activity.count_within(candidates, times, SPANS)
            found.append(_log(times - np.maximum(last, self.published[candidates])) / 10)
            found += map(_log, counts)
        return torch.from_numpy(np.stack(found, axis=-1).astype(np.float32))


def _log(values: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.log1p(np.maximum(values, 0)))


class TimingScore(nn.Module):
    """What a network makes of a candidate's times, to be added to its cosine."""

    def __init__(self, timing: Timing, width: int = 32) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(COUNTS[timing], width), nn.Linear(width, 1)
        nn.init.zeros_(self.out.weight)  # times count nothing at first

    def forward(self, times: Tensor) -> Tensor:
        """Return (...) of (..., F)."""
        score: Tensor = self.out(F.gelu(self.hidden(times)))
        return score[..., 0]
