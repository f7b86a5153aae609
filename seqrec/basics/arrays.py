"""Arithmetic of ragged arrays, and their hash."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def ragged_arange(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the integers starts[i], ..., starts[i] + lengths[i] - 1 for every i, one after another."""
    shift = starts - (np.cumsum(lengths) - lengths)
    values: NDArray[np.int64] = np.arange(lengths.sum(), dtype=np.int64)
    values += np.repeat(shift, lengths)
    return values


def hash_arrays(*arrays: NDArray[Any]) -> str:
    """Return the sha256 of the arrays' numbers, one after another, without a copy of them."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
