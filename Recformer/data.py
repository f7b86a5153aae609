"""Recformer's batches: histories as text. Shapes: B users, T tokens of all of them."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from Recformer.text import ItemTokens, TokenBatch, build_sequences
from seqrec.dataset import Histories
from seqrec.losses import Loss
from seqrec.negatives import draw_negatives
from seqrec.ragged import BatchKey


class TrainBatch(NamedTuple):
    """Histories and the item that follows each."""

    inputs: TokenBatch
    targets: Tensor
    """(B,) int64."""
    negatives: Tensor
    """(K,) int64, empty for the full softmax."""


def history_tokens(histories: Histories, item_tokens: ItemTokens, max_token_num: int) -> NDArray[np.int64]:
    """Return (n,) how many tokens each history gives the model, the class token included."""
    if not len(histories):
        return np.zeros(0, dtype=np.int64)
    total = np.concatenate(([0], np.cumsum(item_tokens.lengths[histories.items])))
    lengths: NDArray[np.int64] = np.minimum(1 + total[histories.ends] - total[histories.starts], max_token_num)
    return lengths


class TrainDataset(Dataset[TrainBatch]):
    """Per user and epoch one target, drawn from all training events but the first; the history is what precedes it."""

    def __init__(
        self, train: Histories, item_tokens: ItemTokens, max_token_num: int, num_negatives: int, seed: int
    ) -> None:
        self.sequences = train.select(train.lengths >= 2)
        if not len(self.sequences):
            raise ValueError("no training sequence has 2 items: nothing can be learned; prepare a larger dataset")
        self.item_tokens, self.max_token_num, self.seed = item_tokens, max_token_num, seed
        self.num_negatives = num_negatives
        self.loss: Loss = "sampled_softmax" if num_negatives > 0 else "ce"

    def __getitem__(self, key: BatchKey) -> TrainBatch:
        generator = key.generator(self.seed)
        starts, ends = self.sequences.starts[key.rows], self.sequences.ends[key.rows]
        at = generator.integers(starts + 1, ends)
        one = np.ones(len(key.rows), dtype=np.int64)
        num_items = self.item_tokens.num_items
        negatives = draw_negatives(self.loss, generator, self.sequences, key.rows, one, num_items, self.num_negatives)
        return TrainBatch(
            inputs=build_sequences(self.sequences.items, starts, at, self.item_tokens, self.max_token_num),
            targets=torch.from_numpy(self.sequences.items[at].astype(np.int64)),
            negatives=torch.from_numpy(negatives),
        )
