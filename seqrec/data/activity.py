"""When things were taken up, by anybody. Shapes: E events, N things; what is asked may have any shape."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
NEVER = np.iinfo(np.int64).min
"""When something was taken up that never was."""


class Activity:
    """The events of all users, thing by thing, as they were known at any moment."""

    def __init__(self, things: NDArray[np.integer], times: NDArray[np.int64]) -> None:
        """Sort them.

        Args:
            things: (E,) numbers from 0.
            times: (E,) seconds.
        """
        self._low = int(times.min(initial=0))
        self._span = int(times.max(initial=0)) - self._low + 2
        self._keys = np.sort(things.astype(np.int64) * self._span + times - self._low)

    def count_before(self, things: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how often things were taken up before some moments."""
        return self._place(things, times) - np.searchsorted(self._keys, things * self._span)

    def count_within(self, things: NDArray[np.int64], times: NDArray[np.int64], spans: Sequence[int]) -> list[Counts]:
        """Return for each span how often things were taken up within so many seconds before some moments."""
        end = self._place(things, times)
        return [end - self._place(things, times - span) for span in spans]

    def last_before(self, things: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return when things were last taken up before some moments, in seconds; NEVER where they were not."""
        if not len(self._keys):
            return np.full(np.broadcast(things, times).shape, NEVER)
        key = self._keys[np.maximum(self._place(things, times) - 1, 0)]
        there = (key // self._span == things) & (key % self._span + self._low < times)
        return np.where(there, key % self._span + self._low, NEVER)

    def _place(self, things: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many events of all lie before each moment of a thing."""
        inside = np.clip(times - self._low, 0, self._span - 1)
        return np.searchsorted(self._keys, things * self._span + inside)
