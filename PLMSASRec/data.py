"""PLMSASRec's batches. Shapes: B users, E events of all of them.

A training sequence predicts each of its items from those before it. Positions count from the oldest event that is read.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Histories
from seqrec.nn.ragged import Layout, cut_by_length, longest_first, make_layout
from seqrec.nn.repeats import Had, had_by_history
from seqrec.training.item_batches import ItemBatch, ItemReader
from seqrec.training.transitions import TransitionReader


class Inputs(NamedTuple):
    """Histories as the model reads them, longest first; `order` puts results back into the batch's order."""

    items: Tensor
    positions: Tensor
    layout: Layout
    last: Layout
    order: Tensor
    had: Had | None = None
    """What each history has, in the batch's order."""


class TrainBatch(NamedTuple):
    """Histories, and the items to encode for them."""

    items: ItemBatch
    positions: Tensor
    layout: Layout


def make_inputs(histories: Histories, rows: NDArray[np.int64], maxlen: int, repeats: bool = False) -> Inputs:
    """Return the most recent `maxlen` events of each history; none may be empty.

    Args:
        histories: A view.
        rows: (B,) histories of it.
        maxlen: Events of each.
        repeats: Whether the model has a score of what a history has.
    """
    order = longest_first(np.minimum(histories.lengths[rows], maxlen))
    items, offsets = histories.gather(rows[order], maxlen)
    lengths = np.diff(offsets)
    bounds = cut_by_length(lengths)
    return Inputs(
        items=torch.from_numpy(items),
        positions=torch.from_numpy(_positions(lengths)),
        layout=make_layout(lengths, bounds),
        last=make_layout(np.ones_like(lengths), bounds),
        order=torch.from_numpy(np.argsort(order)),
        had=had_by_history(histories, rows, maxlen) if repeats else None,
    )


def _positions(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)


class TrainDataset(Dataset[TrainBatch]):
    """Training sequences with at least one transition."""

    def __init__(self, reader: TransitionReader, read_items: ItemReader) -> None:
        self.reader, self.read_items = reader, read_items

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) number of events of each sequence."""
        return self.reader.lengths

    def __getitem__(self, key: BatchKey) -> TrainBatch:
        read = self.reader.read(key)
        return TrainBatch(self.read_items(read), torch.from_numpy(_positions(read.lengths)), make_layout(read.lengths))
