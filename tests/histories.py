"""Histories for tests, from plain lists."""

import numpy as np

from seqrec.data.dataset import Histories


def as_histories(lists: list[list[int]]) -> Histories:
    """Return a view in which each list is the history of one user."""
    offsets = np.cumsum([0, *map(len, lists)])
    items = np.array([item for row in lists for item in row], dtype=np.int32)
    return Histories(items, np.arange(len(lists)), offsets[:-1], offsets[1:])


def random_lists(lengths: list[int], num_items: int = 30) -> list[list[int]]:
    """Return random items 1..N in lists of these lengths, the same at every call."""
    generator = np.random.default_rng(sum(lengths))
    return [generator.integers(1, num_items + 1, n).tolist() for n in lengths]
