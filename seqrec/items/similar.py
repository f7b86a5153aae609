"""Which items are near to one another. Shapes: N items, K neighbours, V users or words."""

from typing import Any

import numpy as np
import scipy.sparse
import torch
from sklearn.preprocessing import normalize
from torch import Tensor

from seqrec.basics.progress import progress
from seqrec.data.dataset import Dataset, Histories
from seqrec.items.words import count_words, read_texts

BLOCK = 1 << 24
"""Similarities in memory at one time: 64 MiB."""


def by_users(train: Histories, num_items: int) -> Any:
    """Return items as the users who have them, (N+1, V) sparse, rows of length 1: a product is the cosine."""
    items, offsets = train.gather(np.arange(len(train)), int(train.lengths.max(initial=1)))
    users = np.repeat(np.arange(len(train)), np.diff(offsets))
    table = scipy.sparse.csr_array((np.ones(len(items), np.float32), (items, users)), (num_items + 1, len(train)))
    table.data.fill(1)  # once for each user
    return normalize(table)


def by_words(dataset: Dataset) -> Any:
    """Return items as the words of their texts, (N+1, V) sparse TF-IDF, rows of length 1."""
    words, _ = count_words([read_texts(dataset)])
    return scipy.sparse.vstack([scipy.sparse.csr_array((1, words[0].shape[1]), dtype=np.float32), words[0]], "csr")


def find_nearest(table: Any, most: int) -> tuple[Tensor, Tensor]:
    """Return the nearest other items of each item and their similarities, (N+1, K) each, nearest first.

    Args:
        table: (N+1, V) sparse; similarities are dot products of rows.
        most: K is the smaller of it and N.
    """
    height = table.shape[0]
    k, step, other = min(most, height - 1), max(1, BLOCK // height), table.T.tocsr()
    nearest, similarity = torch.zeros(height, k, dtype=torch.int64), torch.zeros(height, k)
    for start in progress(range(0, height, step), desc="finding neighbours"):
        near = torch.from_numpy((table[start : start + step] @ other).toarray())
        own = torch.arange(len(near))
        near[own, start + own] = -1
        similarity[start : start + step], nearest[start : start + step] = near.topk(k, dim=1)
    return nearest, similarity.clamp_(min=0)
