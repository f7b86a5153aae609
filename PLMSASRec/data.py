"""PLMSASRec's batches. Shapes: B users, E events of all of them, R distinct items that a batch reads, K negatives.

A training sequence predicts each of its items from those before it. Positions count from the oldest event that is read.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Histories
from seqrec.nn.losses import LossOptions
from seqrec.nn.ragged import Layout, cut_by_length, longest_first, make_layout
from seqrec.text.texts import Texts
from seqrec.training.transitions import TransitionReader

ReadTexts = Callable[[NDArray[np.int64]], Texts]
"""Maps (R,) items to their texts, or the cached states of these."""


class Inputs(NamedTuple):
    """Histories as the model reads them, longest first; `order` puts results back into the batch's order."""

    items: Tensor
    positions: Tensor
    layout: Layout
    last: Layout
    order: Tensor


class TrainBatch(NamedTuple):
    """Histories, the item that follows each event, and the items to encode for both, each once."""

    rows: Tensor
    """(R,) int64 items."""
    texts: Texts | None
    """Of these items, if the model reads them."""
    classes: Tensor | None
    """(C,) int64 items that a full softmax over items' own vectors tells apart."""
    events: Tensor
    """(E,) int64 places in `rows`."""
    positions: Tensor
    layout: Layout
    targets: Tensor
    """(E,) int64: items; where the classes are items' own vectors, places in `rows`, for the full softmax in `classes`,
    from 1."""
    negatives: Tensor
    """(K,), or (E,) for `bce`; like the targets."""
    log_chance: Tensor
    num_counted: int
    """Targets that count: all, or 0 in a process without a history of its own."""


def make_inputs(histories: Histories, rows: NDArray[np.int64], maxlen: int) -> Inputs:
    """Return the most recent `maxlen` events of each history; none may be empty."""
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
    )


def _positions(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)


class TrainDataset(Dataset[TrainBatch]):
    """Training sequences with at least one transition."""

    def __init__(
        self,
        train: Histories,
        num_items: int,
        maxlen: int,
        options: LossOptions,
        seed: int,
        is_tied: bool,
        read_texts: ReadTexts | None,
        encode_all: bool = True,
    ) -> None:
        """Take the training view.

        Args:
            train: The view.
            num_items: N.
            maxlen: Most events of a sequence.
            options: Of the loss, whose negatives are drawn here.
            seed: Of the run.
            is_tied: Whether the classes are the items' own vectors, so that they are encoded, too.
            read_texts: Where the model reads texts.
            encode_all: Under the full softmax over items' own vectors, encode all classes rather than the histories'
                items.
        """
        self.reader = TransitionReader(train, num_items, maxlen, options, seed)
        # An item that occurs in no training is no wrong answer: as one it would be pushed away from every user.
        self.seen = np.flatnonzero(train.item_counts(num_items))
        self.is_tied, self.read_texts, self.encode_all = is_tied, read_texts, encode_all

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) number of events of each sequence."""
        return self.reader.lengths

    def __getitem__(self, key: BatchKey) -> TrainBatch:
        read = self.reader.read(key)
        events, targets, others = read.events, read.targets, read.negatives.items.numpy()
        classes = None
        if self.is_tied and self.reader.options.loss == "ce":
            classes = self.seen
            rows = classes if self.encode_all else np.unique(events)
            places, targets = np.searchsorted(rows, events), np.searchsorted(classes, targets) + 1
        elif self.is_tied:
            rows, found = np.unique(np.concatenate([events, targets, others]), return_inverse=True)
            places, targets, others = np.split(found, [len(events), 2 * len(events)])
        else:
            rows, places = np.unique(events, return_inverse=True)
        return TrainBatch(
            rows=torch.from_numpy(rows),
            texts=None if self.read_texts is None else self.read_texts(rows),
            classes=None if classes is None else torch.from_numpy(classes),
            events=torch.from_numpy(places),
            positions=torch.from_numpy(_positions(read.lengths)),
            layout=make_layout(read.lengths),
            targets=torch.from_numpy(targets),
            negatives=torch.from_numpy(others),
            log_chance=read.negatives.log_chance,
            num_counted=read.num_counted,
        )
