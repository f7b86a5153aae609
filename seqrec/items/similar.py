"""Which items are near to one another. Shapes: N items, K neighbours, V words or users."""

from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from seqrec.basics.progress import progress
from seqrec.data.dataset import Dataset
from seqrec.items.words import count_words, read_texts

BLOCK = 1 << 24
"""Similarities in memory at one time: 64 MiB."""


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
