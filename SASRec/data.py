"""SASRec's batches. Shapes: B users, T events of all of them, L longest history.

A training sequence predicts each of its items from those before it. Positions count from the end: the last event has
position maxlen-1, in training and in use.
"""

from dataclasses import replace
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
from seqrec.nn.negatives import Negatives, NegativeSampler
from seqrec.nn.ragged import Layout, cut_by_length, longest_first, make_layout


class Inputs(NamedTuple):
    """Histories as the model reads them, longest first; `order` puts results back into the batch's order."""

    items: Tensor
    positions: Tensor
    layout: Layout
    last: Layout
    order: Tensor
    seconds: Tensor | None = None


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


def make_inputs(histories: Histories, rows: NDArray[np.int64], maxlen: int, timed: bool = False) -> Inputs:
    """Return the most recent `maxlen` events of each history, `timed` with their times; no history may be empty."""
    order = longest_first(np.minimum(histories.lengths[rows], maxlen))
    items, offsets = histories.gather(rows[order], maxlen)
    lengths = np.diff(offsets)
    bounds = cut_by_length(lengths)
    return Inputs(
        items=torch.from_numpy(items),
        positions=torch.from_numpy(_positions(offsets, maxlen)),
        layout=make_layout(lengths, bounds),
        last=make_layout(np.ones_like(lengths), bounds),
        order=torch.from_numpy(np.argsort(order)),
        seconds=torch.from_numpy(histories.gather_times(rows[order], maxlen)) if timed else None,
    )


def _positions(offsets: NDArray[np.int64], maxlen: int) -> NDArray[np.int64]:
    """Return (T,) positions that end in maxlen-1 for every history."""
    lengths = np.diff(offsets)
    return np.arange(offsets[-1]) - np.repeat(offsets[1:], lengths) + maxlen


class TrainDataset(Dataset[TrainBatch]):
    """Training sequences with at least one transition."""

    def __init__(
        self, train: Histories, num_items: int, maxlen: int, options: LossOptions, seed: int, timed: bool = False
    ) -> None:
        self.sequences = train.select(train.lengths >= 2)
        if timed and train.times is None:
            raise UserError("this dataset has no timestamps, only order: train without --relative_time")
        if not len(self.sequences):
            raise UserError("no training sequence has 2 items: nothing can be learned; prepare a larger dataset")
        self.maxlen, self.seed, self.timed = maxlen, seed, timed
        s = self.sequences
        targets = replace(s, starts=np.maximum(s.starts + 1, s.ends - maxlen))
        self.draw_negatives = NegativeSampler(options, s, num_items, targets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) number of events of each sequence."""
        return np.minimum(self.sequences.lengths - 1, self.maxlen)

    def __getitem__(self, key: BatchKey) -> TrainBatch:
        rows = key.rows[longest_first(self.lengths[key.rows])]
        items, offsets = self.sequences.gather(rows, self.maxlen + 1)
        is_last = np.zeros(len(items), dtype=bool)
        is_last[offsets[1:] - 1] = True
        lengths = np.diff(offsets) - 1
        inside = np.concatenate(([0], np.cumsum(lengths)))
        targets = _without_first(items, offsets)
        all_targets = targets
        if key.batch_rows is not None and self.draw_negatives.options.needs_targets:
            all_targets = _without_first(*self.sequences.gather(key.batch_rows, self.maxlen + 1))
        seconds = None
        if self.timed:
            seconds = torch.from_numpy(self.sequences.gather_times(rows, self.maxlen + 1)[~is_last])
        return TrainBatch(
            items=torch.from_numpy(items[~is_last]),
            positions=torch.from_numpy(_positions(inside, self.maxlen)),
            layout=make_layout(lengths),
            targets=torch.from_numpy(targets),
            negatives=self.draw_negatives(key, self.seed, rows, lengths, all_targets),
            num_counted=len(targets) if key.counts else 0,
            seconds=seconds,
        )


def _without_first(items: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the items of all histories but the first of each."""
    return np.delete(items, offsets[:-1])
