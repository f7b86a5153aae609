"""Random numbers per row, independent of the row's batch and of the process that reads it.

Each row has its own SplitMix64 generator; all rows are drawn at once. Shapes: B rows, n draws of all.
Source: Steele, Lea & Flood (2014), https://doi.org/10.1145/2714064.2660195.
"""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return each number's next state of SplitMix64, finalised."""
    x = x + np.uint64(_GAMMA)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


class RowDraws:
    """Draws for (B,) rows; each call gives fresh numbers."""

    def __init__(self, seed: int, epoch: int, rows: NDArray[np.int64], purpose: str) -> None:
        """Seed a generator for each row.

        Args:
            seed: Of the run.
            epoch: From 0.
            rows: (B,) their numbers in the data, at least 0.
            purpose: Name of what is drawn; different names draw independently.
        """
        self._keys = rows.astype(np.uint64)
        for word in (zlib.crc32(purpose.encode()), epoch, seed):
            self._keys = mix(self._keys ^ mix(np.array([word & _MASK], dtype=np.uint64)))
        self._calls = 0

    def uniform(self, counts: NDArray[np.integer[Any]] | None = None) -> NDArray[np.float64]:
        """Return (n,) numbers in [0, 1), row after row: one per row, or (B,) `counts` per row."""
        self._calls += 1
        keys = mix(self._keys ^ mix(np.array([self._calls], dtype=np.uint64)))
        place = np.uint64(0)
        if counts is not None:
            ends = np.cumsum(counts)
            keys = np.repeat(keys, counts)
            place = (np.arange(len(keys)) - np.repeat(ends - counts, counts)).astype(np.uint64)
        with np.errstate(over="ignore"):
            states = keys + place * np.uint64(_GAMMA)
        return np.asarray((mix(states) >> np.uint64(11)) * 2.0**-53, dtype=np.float64)

    def integers(
        self,
        low: NDArray[np.int64] | int,
        high: NDArray[np.int64] | int,
        counts: NDArray[np.integer[Any]] | None = None,
    ) -> NDArray[np.int64]:
        """Return (n,) integers in [low, high); the limits are numbers or (n,) arrays. See `uniform`."""
        span = np.asarray(high) - low
        # The product with a number below 1 may round up to the span itself.
        return np.asarray(np.minimum((self.uniform(counts) * span).astype(np.int64), span - 1) + low, dtype=np.int64)
