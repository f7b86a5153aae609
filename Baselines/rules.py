"""Sequential rules: what follows an item in histories. Shapes: N items, K rules of an item, E events."""

from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec.data.dataset import Histories

STEPS = 10
"""Events after an item that a rule looks at; the d-th counts 1 / d."""


def find_rules(train: Histories, num_items: int, most: int) -> tuple[Tensor, Tensor]:
    """Return what follows each item most, (N+1, K), and how much of the item's events speak for it, greatest first.

    Source: Kamehkhosh et al. (2017), A comparison of frequent pattern techniques and a deep learning method for
    session-based recommendation; Ludewig & Jannach (2018), https://doi.org/10.1007/s11257-018-9209-6, section 3.1.3.
    """
    items, offsets = train.gather(np.arange(len(train)), int(train.lengths.max(initial=1)))
    users = np.repeat(np.arange(len(train)), np.diff(offsets))
    shape, table = (num_items + 1, num_items + 1), None
    for step in range(1, STEPS + 1):
        same = users[:-step] == users[step:]
        pairs = items[:-step][same], items[step:][same]
        followed = scipy.sparse.csr_array((np.full(len(pairs[0]), 1 / step, np.float32), pairs), shape)
        table = followed if table is None else table + followed
    assert table is not None
    table.setdiag(0)
    table.eliminate_zeros()
    return _greatest(table, np.maximum(train.item_counts(num_items), 1), min(most, num_items))


def _greatest(table: Any, counts: NDArray[np.int64], most: int) -> tuple[Tensor, Tensor]:
    """Return the columns of the K greatest entries of each row of a sparse table, and these over (N+1,) counts."""
    rows = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    order = np.lexsort((-table.data, rows))
    place = np.arange(len(order)) - table.indptr[rows]
    kept = place < most
    nearest, share = torch.zeros(len(counts), most, dtype=torch.int64), torch.zeros(len(counts), most)
    at = torch.from_numpy(rows[kept]), torch.from_numpy(place[kept])
    nearest[at] = torch.from_numpy(table.indices[order][kept].astype(np.int64))
    share[at] = torch.from_numpy((table.data[order] / counts[rows]).astype(np.float32)[kept])
    return nearest, share
