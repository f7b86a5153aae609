"""Ranking metrics of held-out items. Shapes: n targets, each a user's."""

import numpy as np
from numpy.typing import NDArray

from seqrec.data.protocol import KS

Ranks = NDArray[np.int64]
Values = NDArray[np.float64]

RANKS, OTHER_RANKS, USERS = "ranks-test.npy", "ranks-other.npy", "users-test.npy"
"""Files of a run's ranks in its own test and in the other way, and of the users where they have several targets."""


def ndcg_at_k(rank: Ranks, k: int) -> Values:
    """Return each target's NDCG@k, (n,) in [0, 1], from (n,) 0-based ranks.

    With one relevant item the ideal DCG is 1, so the discount of the hit is already normalised.
    Source: Järvelin & Kekäläinen (2002), https://doi.org/10.1145/582415.582418.

    >>> ndcg_at_k(np.array([0, 2, 10]), 10).tolist()
    [1.0, 0.5, 0.0]
    """
    _check_k(k)
    return np.where(rank < k, 1 / np.log2(rank + 2.0), 0.0)


def recall_at_k(rank: Ranks, k: int) -> Values:
    """Return each target's Recall@k, (n,) in {0, 1}: with one relevant item also the hit rate.

    >>> recall_at_k(np.array([0, 9, 10]), 10).tolist()
    [1.0, 1.0, 0.0]
    """
    _check_k(k)
    return (rank < k).astype(np.float64)


def reciprocal_rank(rank: Ranks) -> Values:
    """Return each target's 1 / (rank + 1), (n,), without a cutoff.

    >>> reciprocal_rank(np.array([0, 1, 3])).tolist()
    [1.0, 0.5, 0.25]
    """
    return 1 / (rank + 1.0)


def auc(rank: Ranks, num_candidates: Ranks | int) -> Values:
    """Return the share of the other candidates that rank below each target, (n,) in [0, 1].

    Args:
        rank: (n,) 0-based.
        num_candidates: Candidates of each target, itself included: (n,) or one number; at least 1.

    >>> auc(np.array([0, 1, 4]), 5).tolist()
    [1.0, 0.75, 0.0]
    >>> auc(np.array([0]), 1).tolist()  # alone
    [1.0]
    """
    others = np.asarray(num_candidates, dtype=np.float64) - 1
    return np.where(others > 0, 1 - rank / np.maximum(others, 1), 1.0)


def measure(rank: Ranks, num_candidates: Ranks | int, ks: tuple[int, ...] = KS) -> dict[str, Values]:
    """Return every metric of each target, (n,)."""
    metrics = {f"NDCG@{k}": ndcg_at_k(rank, k) for k in ks} | {f"Recall@{k}": recall_at_k(rank, k) for k in ks}
    return metrics | {"MRR": reciprocal_rank(rank), "AUC": auc(rank, num_candidates)}


def mean_by_user(values: Values, users: NDArray[np.int64]) -> Values:
    """Return each user's mean over the targets, users ascending: (U,) from (n,) values and (n,) users.

    >>> mean_by_user(np.array([1.0, 0.2, 0.0]), np.array([7, 3, 7])).tolist()
    [0.2, 0.5]
    """
    _, owner, counts = np.unique(users, return_inverse=True, return_counts=True)
    return np.bincount(owner, values) / counts


def join_by_user(metric: str, values: Values, users: NDArray[np.int64]) -> Values:
    """Return each user's metric if all targets of the user are relevant at once, users ascending.

    Of P relevant items, Recall@k is the share in the first k, MRR is that of the first one, and NDCG@k is divided by
    the DCG of the best order, whose first min(P, k) items are relevant.

    Args:
        metric: NDCG@k, Recall@k or MRR.
        values: (n,) of each target alone, whose rank counts the other relevant items before it.
        users: (n,).

    >>> join_by_user("MRR", reciprocal_rank(np.array([4, 0, 1])), np.array([3, 3, 5])).tolist()
    [1.0, 0.5]
    """
    _, owner, counts = np.unique(users, return_inverse=True, return_counts=True)
    if metric == "MRR":
        best = np.zeros(len(counts))
        np.maximum.at(best, owner, values)
        return best
    total = np.bincount(owner, values)
    if not metric.startswith("NDCG@"):
        return total / counts
    k = int(metric.removeprefix("NDCG@"))
    ideal = np.cumsum(1 / np.log2(np.arange(2, 2 + min(k, int(counts.max(initial=1))))))
    return np.asarray(total / ideal[np.minimum(counts, k) - 1])


def auc_by_user(ranks: Ranks, num_candidates: Ranks, users: NDArray[np.int64]) -> Values:
    """Return the share of pairs of a relevant and another candidate of a user that are in the right order.

    Args:
        ranks: (n,) of each relevant item, counting the others.
        num_candidates: (n,) candidates of its user, relevant items included.
        users: (n,).

    >>> auc_by_user(np.array([0, 2]), np.array([3, 3]), np.array([7, 7])).tolist()
    [0.5]
    """
    _, first, owner, counts = np.unique(users, return_index=True, return_inverse=True, return_counts=True)
    before = np.bincount(owner, ranks) - counts * (counts - 1) / 2  # others that stand before a relevant one
    pairs = counts * (num_candidates[first] - counts)
    return np.where(pairs > 0, 1 - before / np.maximum(pairs, 1), 1.0)


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
