"""Recformer's batches: histories as text. Shapes: B users, T tokens of all of them."""

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
from seqrec.nn.negatives import Negatives, NegativeSampler, log_chance
from seqrec.text.sequences import TokenBatch, build_sequences, item_sequences
from seqrec.text.tokens import ItemTokens


class Classes(NamedTuple):
    """The items that a batch tells its targets from, where they are trained too: M distinct ones."""

    texts: TokenBatch
    own: Tensor
    """(B,) int64, which of them is each history's target."""
    log_chance: Tensor
    """(M,) float32, logarithm of the chance that a batch has the item, as another history's target or a negative."""


class TrainBatch(NamedTuple):
    """Histories and the item that follows each."""

    inputs: TokenBatch
    targets: Tensor
    """(B,) int64."""
    negatives: Negatives
    classes: Classes | None
    num_counted: int
    """Targets that count: all, or 0 in a process without a history of its own."""


class TrainDataset(Dataset[TrainBatch]):
    """Per user and epoch one target, drawn from all training events but the first; the history is what precedes it."""

    def __init__(
        self,
        train: Histories,
        item_tokens: ItemTokens,
        max_token_num: int,
        num_negatives: int,
        seed: int,
        with_classes: bool = False,
    ) -> None:
        """Take the training view; `with_classes` brings the texts of the batch's own items too."""
        self.sequences = train.select(train.lengths >= 2)
        if not len(self.sequences):
            raise UserError("no training sequence has 2 items: nothing can be learned; prepare a larger dataset")
        self.item_tokens, self.max_token_num, self.seed = item_tokens, max_token_num, seed
        loss = LossOptions("sampled_softmax", num_negatives) if num_negatives > 0 else LossOptions()
        self.draw_negatives = NegativeSampler(loss, self.sequences, item_tokens.num_items)
        self.target_share = self._target_share() if with_classes else None

    def _target_share(self) -> NDArray[np.float64]:
        """Return (N+1,) the probability that a user drawn at random has each item for a target."""
        events = self.sequences.lengths - 1
        items = self.sequences.items[ragged_arange(self.sequences.starts + 1, events)]
        weights = np.repeat(1 / events, events) / len(events)
        return np.bincount(items, weights, self.item_tokens.num_items + 1).astype(np.float64)

    def _classes(
        self, targets: NDArray[np.int64], all_targets: NDArray[np.int64], negatives: NDArray[np.int64]
    ) -> Classes | None:
        """Return the distinct items of a batch, of all processes."""
        if self.target_share is None:
            return None
        items = np.unique(np.concatenate([all_targets, negatives]))
        share = self.target_share[items]
        return Classes(
            texts=item_sequences(items, self.item_tokens, self.max_token_num),
            own=torch.from_numpy(np.searchsorted(items, targets)),
            log_chance=log_chance(share, len(all_targets) - 1, len(negatives), self.item_tokens.num_items),
        )

    def _places(self, key: BatchKey, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (B,) which event of some rows is the target in this epoch."""
        draws = key.draws(self.seed, rows, "targets")
        return draws.integers(self.sequences.starts[rows] + 1, self.sequences.ends[rows])

    def __getitem__(self, key: BatchKey) -> TrainBatch:
        starts, at = self.sequences.starts[key.rows], self._places(key, key.rows)
        one = np.ones(len(key.rows), dtype=np.int64)
        targets = all_targets = self.sequences.items[at].astype(np.int64)
        if key.batch_rows is not None:
            all_targets = self.sequences.items[self._places(key, key.batch_rows)].astype(np.int64)
        negatives = self.draw_negatives(key, self.seed, key.rows, one, all_targets)
        return TrainBatch(
            inputs=build_sequences(self.sequences.items, starts, at, self.item_tokens, self.max_token_num),
            targets=torch.from_numpy(targets),
            negatives=negatives,
            classes=self._classes(targets, all_targets, negatives.items.numpy()),
            num_counted=len(targets) if key.counts else 0,
        )
