"""SASRec's batches. Shapes: B users, T events of all of them, L longest history.

A training sequence predicts each of its items from those before it. Positions count from the end: the last event has
position maxlen-1, in training and in use.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Histories
from seqrec.nn.losses import LossOptions
from seqrec.nn.negatives import Negatives
from seqrec.nn.ragged import Layout, cut_by_length, longest_first, make_layout
from seqrec.nn.repeats import Had, had_by_history
from seqrec.training.transitions import TransitionReader


class Inputs(NamedTuple):
    """Histories as the model reads them, longest first; `order` puts results back into the batch's order."""

    items: Tensor
    positions: Tensor
    layout: Layout
    last: Layout
    order: Tensor
    seconds: Tensor | None = None
    had: Had | None = None
    """What each history has, in the batch's order."""


class TrainBatch(NamedTuple):
    """Histories, the item that follows each event, and negatives."""

    items: Tensor
    positions: Tensor
    layout: Layout
    targets: Tensor
    negatives: Negatives
    num_counted: int
    """Targets that count: all, or 0 in a process without a history of its own."""
    seconds: Tensor | None = None
    had: Had | None = None
    """What the history has up to each event."""


def make_inputs(
    histories: Histories, rows: NDArray[np.int64], maxlen: int, timed: bool = False, repeats: bool = False
) -> Inputs:
    """Return the most recent `maxlen` events of each history; no history may be empty.

    Args:
        histories: A view.
        rows: (B,) histories of it.
        maxlen: Events of each.
        timed: Whether the model reads times.
        repeats: Whether it has a score of what a history has.
    """
    order = longest_first(np.minimum(histories.lengths[rows], maxlen))
    items, offsets = histories.gather(rows[order], maxlen)
    lengths = np.diff(offsets)
    bounds = cut_by_length(lengths)
    return Inputs(
        items=torch.from_numpy(items),
        positions=torch.from_numpy(_positions(lengths, maxlen)),
        layout=make_layout(lengths, bounds),
        last=make_layout(np.ones_like(lengths), bounds),
        order=torch.from_numpy(np.argsort(order)),
        seconds=torch.from_numpy(histories.gather_times(rows[order], maxlen)) if timed else None,
        had=had_by_history(histories, rows, maxlen) if repeats else None,
    )


def _positions(lengths: NDArray[np.int64], maxlen: int) -> NDArray[np.int64]:
    """Return (T,) positions that end in maxlen-1 for every history."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) - np.repeat(ends, lengths) + maxlen


class TrainDataset(Dataset[TrainBatch]):
    """Training sequences with at least one transition."""

    def __init__(
        self,
        train: Histories,
        num_items: int,
        maxlen: int,
        options: LossOptions,
        seed: int,
        timed: bool = False,
        repeats: bool = False,
    ) -> None:
        if timed and train.times is None:
            raise UserError("this dataset has no timestamps, only order: train without --relative_time")
        self.reader, self.timed = TransitionReader(train, num_items, maxlen, options, seed, repeats), timed

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) number of events of each sequence."""
        return self.reader.lengths

    def __getitem__(self, key: BatchKey) -> TrainBatch:
        read = self.reader.read(key)
        return TrainBatch(
            items=torch.from_numpy(read.events),
            positions=torch.from_numpy(_positions(read.lengths, self.reader.maxlen)),
            layout=make_layout(read.lengths),
            targets=torch.from_numpy(read.targets),
            negatives=read.negatives,
            num_counted=read.num_counted,
            seconds=torch.from_numpy(self.reader.times(read)) if self.timed else None,
            had=read.had,
        )
