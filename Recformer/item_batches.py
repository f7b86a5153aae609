"""Batches of histories that are read item by item: one vector per item, whichever history it is in.

Shapes: B users, n histories, E events of them, T targets, M distinct items, K of them classes, N items.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from seqrec.basics.arrays import ragged_arange
from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Histories
from seqrec.nn.losses import LossOptions
from seqrec.nn.negatives import NegativeSampler, log_chance
from seqrec.text.sequences import TokenBatch, item_sequences, item_slots
from seqrec.text.tokens import ItemTokens

MOST_EVENTS = 50
"""Events of a user that are trained on in one epoch."""


class Events(NamedTuple):
    """Histories as events."""

    items: Tensor
    """(E,) int64 item of each, or its row where a batch has vectors of its own."""
    owner: Tensor
    """(E,) int64 history of each, ascending."""
    place: Tensor
    """(E,) int64, 0 for a history's most recent."""
    num_histories: int


def read_events(histories: Histories, rows: NDArray[np.int64]) -> Events:
    """Return all events of some histories."""
    return _events(histories.items, histories.starts[rows], histories.ends[rows])


def count_events(histories: Histories) -> NDArray[np.int64]:
    """Return (n,) events of each history."""
    return histories.lengths


def _events(items: NDArray[np.int32], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Events:
    place, _, owner = item_slots(starts, ends, max(int((ends - starts).max(initial=0)), 1))
    found = items[ends[owner] - 1 - place].astype(np.int64)
    return Events(torch.from_numpy(found), torch.from_numpy(owner), torch.from_numpy(place), len(starts))


class ItemClasses(NamedTuple):
    """What a batch tells its targets from, where these are not all items."""

    ids: Tensor
    """(K,) int64 items, ascending."""
    own: Tensor
    """(T,) int64, which of them is each history's target."""
    log_chance: Tensor
    """(K,) float32, logarithm of the chance that a batch has the item, as another history's target or a negative."""


class ItemBatch(NamedTuple):
    """All targets of some users, each with the history before it."""

    inputs: Events
    """With `ids`, rows of these."""
    ids: Tensor | None
    """(M,) int64 distinct items that are read, ascending; None where none is."""
    texts: TokenBatch | None
    """Their texts."""
    targets: Tensor
    """(T,) int64."""
    classes: ItemClasses | None
    num_counted: int
    """Targets that count: all, or 0 in a process without a history of its own."""


class ItemTrainDataset(Dataset[ItemBatch]):
    """Per user and epoch all events but the first, or a random stretch of at most 50, are targets."""

    def __init__(
        self,
        train: Histories,
        item_tokens: ItemTokens,
        max_token_num: int,
        num_negatives: int,
        seed: int,
        with_texts: bool = True,
        with_classes: bool = False,
    ) -> None:
        """Take the training view.

        Args:
            train: Histories.
            item_tokens: The catalogue.
            max_token_num: Longest text.
            num_negatives: Sampled negatives of a batch; below 1, all items are classes unless `with_classes`.
            seed: Of the run.
            with_texts: Bring the texts of the items that a batch reads.
            with_classes: A batch's classes are its targets and negatives, and their texts are read, too.
        """
        self.sequences = train.select(train.lengths >= 2)
        if not len(self.sequences):
            raise UserError("no training sequence has 2 items: nothing can be learned; prepare a larger dataset")
        self.item_tokens, self.max_token_num, self.seed = item_tokens, max_token_num, seed
        self.with_texts, self.with_classes = with_texts, with_classes
        self.num_uniform = min(max(num_negatives, 0), item_tokens.num_items)
        loss = LossOptions("sampled_softmax", num_negatives) if num_negatives > 0 else LossOptions()
        self.draw_negatives = NegativeSampler(loss, self.sequences, item_tokens.num_items)
        events = self.sequences.items[ragged_arange(self.sequences.starts + 1, self.sequences.lengths - 1)]
        self.share = np.bincount(events, minlength=item_tokens.num_items + 1) / len(events)

    def _targets(self, key: BatchKey, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (T,) the event of each target, and (T,) where its history starts."""
        starts, lengths = self.sequences.starts[rows], self.sequences.lengths[rows]
        size = np.minimum(lengths, MOST_EVENTS)
        starts = starts + key.draws(self.seed, rows, "stretches").integers(np.zeros_like(size), lengths - size + 1)
        return ragged_arange(starts + 1, size - 1), np.repeat(starts, size - 1)

    def __getitem__(self, key: BatchKey) -> ItemBatch:
        at, starts = self._targets(key, key.rows)
        targets = all_targets = self.sequences.items[at].astype(np.int64)
        if key.batch_rows is not None:
            all_targets = self.sequences.items[self._targets(key, key.batch_rows)[0]].astype(np.int64)
        counts = np.minimum(self.sequences.lengths[key.rows], MOST_EVENTS) - 1
        negatives = self.draw_negatives(key, self.seed, key.rows, counts, all_targets).items.numpy()
        inputs = _events(self.sequences.items, starts, at)
        classes = self._classes(targets, all_targets, negatives)
        ids = texts = None
        if self.with_texts:
            read = inputs.items.numpy()
            if self.with_classes and classes is not None:
                read = np.concatenate([read, classes.ids.numpy()])
            distinct = np.unique(read)
            inputs = inputs._replace(items=torch.from_numpy(np.searchsorted(distinct, inputs.items.numpy())))
            ids, texts = torch.from_numpy(distinct), item_sequences(distinct, self.item_tokens, self.max_token_num)
        num_counted = len(targets) if key.counts else 0
        return ItemBatch(inputs, ids, texts, torch.from_numpy(targets), classes, num_counted)

    def _classes(
        self, targets: NDArray[np.int64], all_targets: NDArray[np.int64], negatives: NDArray[np.int64]
    ) -> ItemClasses | None:
        if not (self.with_classes or self.num_uniform):
            return None
        items = np.unique(np.concatenate([all_targets, negatives]))
        chance = log_chance(self.share[items], len(all_targets) - 1, self.num_uniform, self.item_tokens.num_items)
        return ItemClasses(torch.from_numpy(items), torch.from_numpy(np.searchsorted(items, targets)), chance)
