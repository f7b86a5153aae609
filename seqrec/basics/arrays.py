"""Arithmetic of ragged arrays."""

import numpy as np
from numpy.typing import NDArray


def ragged_arange(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the integers starts[i], ..., starts[i] + lengths[i] - 1 for every i, one after another."""
    shift = starts - (np.cumsum(lengths) - lengths)
    values: NDArray[np.int64] = np.arange(lengths.sum(), dtype=np.int64)
    values += np.repeat(shift, lengths)
    return values
