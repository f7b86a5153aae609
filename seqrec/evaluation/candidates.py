"""Sampled candidates: the same K negatives for a user in every family, whatever the batches or processes.

Shapes: B users, K negatives, N items. A draw depends on (seed, user, attempt) alone, through a counter-based hash, so
it is vectorised over users and needs no shared generator.
"""

import numpy as np
from numpy.typing import NDArray

from seqrec.basics.draws import mix
from seqrec.basics.errors import UserError
from seqrec.data.dataset import Dataset

_ATTEMPTS = 1 << 20


def sample_negatives(dataset: Dataset, users: NDArray[np.int64], sample_size: int, seed: int) -> NDArray[np.int64]:
    """Return K distinct items per user that the user never interacted with, in training or held out.

    Args:
        dataset: Where the users' whole sequences come from.
        users: (B,) rows of the dataset, each at most once.
        sample_size: K, at least 1.
        seed: Any integer; the same seed gives the same negatives.

    Returns:
        (B, K) int64 in 1..N, each row in the order drawn: uniform without replacement.

    Raises:
        UserError: If a user has fewer than K items left.
    """
    if sample_size < 1:
        raise UserError(f"sample_size must be at least 1 to sample candidates, got {sample_size}; use -1 to rank all")
    seen = _seen_pairs(dataset, users)
    seen_rows = np.searchsorted(seen, np.arange(len(users) + 1) * _stride(dataset))
    free = dataset.num_items - np.diff(seen_rows)
    if len(users) and free.min() < sample_size:
        row = int(free.argmin())
        raise UserError(
            f"user {users[row]} has only {free[row]} of {dataset.num_items} items left to sample, "
            f"--sample_size {sample_size} asks for more; use a smaller one or --sample_size -1 (full ranking)"
        )
    # A row's draws are an endless stream of hashed items; its negatives are the first K that are new and unseen.
    chosen = np.zeros((len(users), sample_size), dtype=np.int64)
    filled = np.zeros(len(users), dtype=np.int64)
    open_rows = np.arange(len(users))
    attempt, width = 0, sample_size + 16
    while len(open_rows):
        drawn = _hash_items(seed, users[open_rows], attempt, width, dataset.num_items)
        for local in range(width):
            _take(chosen, filled, open_rows, drawn[:, local], seen, _stride(dataset))
        open_rows = open_rows[filled[open_rows] < sample_size]
        attempt += width
    return chosen


def _stride(dataset: Dataset) -> int:
    return dataset.num_items + 1


def _seen_pairs(dataset: Dataset, users: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sorted, distinct row * (N+1) + item of each user's items, and a last entry above them."""
    starts, ends = dataset.offsets[users], dataset.offsets[users + 1]
    lengths = ends - starts
    rows = np.repeat(np.arange(len(users)), lengths)
    first = np.concatenate(([0], np.cumsum(lengths)))[:-1]
    position = np.arange(len(rows)) + np.repeat(starts - first, lengths)
    keys = np.unique(rows * _stride(dataset) + dataset.items[position].astype(np.int64))
    return np.append(keys, np.iinfo(np.int64).max)


def _take(
    chosen: NDArray[np.int64],
    filled: NDArray[np.int64],
    rows: NDArray[np.int64],
    items: NDArray[np.int64],
    seen: NDArray[np.int64],
    stride: int,
) -> None:
    """Append one drawn item to each incomplete row, unless the row has seen or drawn it."""
    keys = rows * stride + items
    at = np.searchsorted(seen, keys)
    is_seen = seen[at] == keys
    repeated = (chosen[rows] == items[:, None]).any(axis=1)
    take = ~is_seen & ~repeated & (filled[rows] < chosen.shape[1])
    chosen[rows[take], filled[rows[take]]] = items[take]
    filled[rows[take]] += 1


def _hash_items(seed: int, users: NDArray[np.int64], first: int, width: int, num_items: int) -> NDArray[np.int64]:
    """Return (B, width) items 1..N, draws first..first+width of each user's stream.

    The remainder's bias is below N / 2^64.
    """
    counter = users.astype(np.uint64)[:, None] * np.uint64(_ATTEMPTS) + np.arange(first, first + width, dtype=np.uint64)
    salt: NDArray[np.uint64] = mix(np.full(1, seed, dtype=np.int64).astype(np.uint64))
    mixed = mix(np.bitwise_xor(counter, salt))
    return (mixed % np.uint64(num_items)).astype(np.int64) + 1
