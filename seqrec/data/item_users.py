"""Items as the users who have them. Shapes: N items, V users."""

from typing import Any

import numpy as np
import scipy.sparse
from sklearn.preprocessing import normalize

from seqrec.data.dataset import Histories


def by_users(train: Histories, num_items: int, latest: int | None = None) -> Any:
    """Return items as the users who have them, (N+1, V) sparse, rows of length 1: a product is the cosine.

    Args:
        train: Of all users.
        num_items: N.
        latest: Count so many of a user's latest events alone.
    """
    most = int(train.lengths.max(initial=1))
    items, offsets = train.gather(np.arange(len(train)), most if latest is None else min(most, latest))
    users = np.repeat(np.arange(len(train)), np.diff(offsets))
    table = scipy.sparse.csr_array((np.ones(len(items), np.float32), (items, users)), (num_items + 1, len(train)))
    table.data.fill(1)  # once for each user
    return normalize(table)
