"""Which items the same users had. Shapes: N items, K neighbours."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqrec.data.dataset import Histories
from seqrec.data.item_users import by_users
from seqrec.items.similar import find_nearest

NEIGHBOURS = 20
MOST_ITEMS = 50_000
"""A larger catalogue is left out: every pair of items is looked at."""


def find_together(train: Histories, num_items: int) -> NDArray[Any] | None:
    """Return (N+1, K) records of `item` and `cosine`, the greatest cosine of their users first; None of many items."""
    if num_items > MOST_ITEMS:
        return None
    nearest, similarity = find_nearest(by_users(train, num_items), NEIGHBOURS)
    found = np.empty(nearest.shape, dtype=[("item", np.int32), ("cosine", np.float32)])
    found["item"], found["cosine"] = nearest.numpy(), similarity.numpy()
    return found
