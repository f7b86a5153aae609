"""The items of a training batch, each once, for models that encode them. Shapes: R items, E events, K negatives."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqrec.data.dataset import Histories
from seqrec.items.language_model import ReadTexts
from seqrec.nn.losses import LossOptions
from seqrec.nn.repeats import Had
from seqrec.text.texts import Texts
from seqrec.training.transitions import Transitions


class ItemBatch(NamedTuple):
    """The items to encode for events and the item that follows each, and what the loss needs."""

    rows: Tensor
    """(R,) int64 items."""
    texts: Texts | None
    """Of these items, if the model reads them."""
    classes: Tensor | None
    """(C,) int64 items that a full softmax over items' own vectors tells apart."""
    events: Tensor
    """(E,) int64 places in `rows`."""
    targets: Tensor
    """(E,) int64, or fewer if not all events are asked: items; where the classes are items' own vectors, places in
    `rows`, for the full softmax in `classes`, from 1."""
    negatives: Tensor
    """(K,), or (E,) for `bce`; like the targets."""
    log_chance: Tensor
    num_counted: int
    """Targets that count: all, or 0 in a process without a history of its own."""
    had: Had | None
    """What the history has up to each event, as the targets are told."""


class ItemReader:
    """Finds the items of a batch's transitions."""

    def __init__(
        self,
        train: Histories,
        num_items: int,
        options: LossOptions,
        is_tied: bool,
        read_texts: ReadTexts | None,
        encode_all: bool = True,
    ) -> None:
        """Take the training view.

        Args:
            train: The view.
            num_items: N.
            options: Of the loss.
            is_tied: Whether the classes are the items' own vectors, so that they are encoded, too.
            read_texts: Where the model reads texts.
            encode_all: Under the full softmax over items' own vectors, encode all classes rather than the histories'
                items.
        """
        # An item that occurs in no training is no wrong answer: as one it would be pushed away from every user.
        self.seen = np.flatnonzero(train.item_counts(num_items))
        self.is_full, self.is_tied = options.loss == "ce", is_tied
        self.read_texts, self.encode_all = read_texts, encode_all

    def __call__(self, read: Transitions) -> ItemBatch:
        """Return the items of some transitions."""
        events, targets, others, had = read.events, read.targets, read.negatives.items.numpy(), read.had
        classes = None
        if self.is_tied and self.is_full:
            classes = self.seen
            rows = classes if self.encode_all else np.unique(events)
            places, targets = np.searchsorted(rows, events), np.searchsorted(classes, targets) + 1
            if had is not None:
                had = had._replace(items=torch.from_numpy(np.searchsorted(classes, had.items.numpy()) + 1))
        elif self.is_tied:
            rows, found = np.unique(np.concatenate([events, targets, others]), return_inverse=True)
            places, targets, others = np.split(found, [len(events), len(events) + len(targets)])
        else:
            rows, places = np.unique(events, return_inverse=True)
        return ItemBatch(
            rows=torch.from_numpy(rows),
            texts=None if self.read_texts is None else self.read_texts(rows),
            classes=None if classes is None else torch.from_numpy(classes),
            events=torch.from_numpy(places),
            targets=torch.from_numpy(targets),
            negatives=torch.from_numpy(others),
            log_chance=read.negatives.log_chance,
            num_counted=read.num_counted,
            had=had,
        )
