"""The items that a history has, for a score that is learned of them.

A user vector is near to the vectors of the items that it is made of. So a dot product ranks these first, whether they
are bought again or not. One number that is added to their scores tells it.

Shapes: E events of B histories, T predictions, P pairs of a prediction and an item.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec.basics.arrays import ragged_arange
from seqrec.data.dataset import Histories
from seqrec.nn.losses import Extra


class Had(NamedTuple):
    """Pairs of a prediction and an item that its history has, each once."""

    rows: Tensor
    """(P,) int64 predictions, ascending."""
    items: Tensor
    """(P,) int64."""

    def of(self, rows: NDArray[np.int64]) -> "Had":
        """Return the pairs of some predictions, (T',) ascending, which count from 0 then."""
        counts = np.bincount(self.rows.numpy(), minlength=int(rows.max(initial=0)) + 1)
        starts = np.cumsum(counts) - counts
        return _stretches(self.items.numpy(), starts[rows], counts[rows])

    def score(self, value: Tensor) -> Extra:
        """Return the () or (1,) value as what is added to the score of each pair."""
        return Extra(self.rows, self.items, value.expand(len(self.rows)))


def had_by_history(histories: Histories, rows: NDArray[np.int64], most: int) -> Had:
    """Return the pairs where each of the (B,) rows of a view is one prediction, of its `most` latest events."""
    items, offsets = histories.gather(rows, most)
    owner = np.repeat(np.arange(len(rows)), np.diff(offsets))
    first = _first(owner, items)
    return _had(owner[first], items[first])


def had_by_event(items: NDArray[np.int64], lengths: NDArray[np.int64]) -> Had:
    """Return the pairs where each event is a prediction and has the events up to it, itself among them.

    Args:
        items: (E,) one history after another, oldest first.
        lengths: (B,) events of each.
    """
    first = _first(np.repeat(np.arange(len(lengths)), lengths), items)
    new = np.zeros(len(items), dtype=np.int64)
    new[first] = 1
    before = np.repeat((np.cumsum(new) - new)[np.cumsum(lengths) - lengths], lengths)
    return _stretches(items[first], before, np.cumsum(new) - before)


def had_by_asked(items: NDArray[np.int64], lengths: NDArray[np.int64], asked: NDArray[np.bool_]) -> Had:
    """Return the pairs where the asked events are predictions and have all others of their history.

    Args:
        items: (E,) one history after another.
        lengths: (B,) events of each.
        asked: (E,).
    """
    owner = np.repeat(np.arange(len(lengths)), lengths)
    known = np.flatnonzero(~asked)
    first = known[_first(owner[known], items[known])]
    counts = np.bincount(owner[first], minlength=len(lengths))
    before = np.cumsum(counts) - counts
    return _stretches(items[first], before[owner[asked]], counts[owner[asked]])


def _first(owner: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places, ascending, of each pair's first occurrence."""
    height = int(items.max(initial=0)) + 1
    return np.sort(np.unique(owner * height + items, return_index=True)[1])


def _stretches(items: NDArray[np.int64], starts: NDArray[np.int64], counts: NDArray[np.int64]) -> Had:
    """Return the pairs of (T,) predictions, each with a stretch of the items."""
    return _had(np.repeat(np.arange(len(counts)), counts), items[ragged_arange(starts, counts)])


def _had(rows: NDArray[np.int64], items: NDArray[np.int64]) -> Had:
    return Had(torch.from_numpy(rows), torch.from_numpy(items.astype(np.int64)))
