"""Whether next items follow from earlier ones: what counting finds before anything is trained.

Shapes: n users, N items, V users who are counted, E events of histories.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from seqrec.basics.progress import progress
from seqrec.data.card import describe
from seqrec.data.dataset import Dataset, Histories
from seqrec.data.item_users import by_users
from seqrec.data.splits import leave_one_out
from seqrec.evaluation.metrics import ndcg_at_k

USERS = 2_000
"""Users who are asked, at most."""
LATEST = 20
"""Latest events of theirs that are read."""
COUNTED = 50
"""Latest events of a user that are counted."""
PAIRS = 50_000_000
"""Pairs of them, at most; of more users so many are drawn."""
ROUNDING = 1e-5
"""Scores that differ by less, as a share of them, are a tie."""
SCORES = 1 << 24
"""Scores in memory at one time, at most."""


@dataclass(frozen=True, slots=True)
class Signal:
    """NDCG@10 of two rankings, each with its standard error over users."""

    users: int
    item_knn: tuple[float, float]
    popularity: tuple[float, float]

    def __str__(self) -> str:
        """Return a line for a dataset's card."""
        knn, popular = (f"{mean:.4f} ± {1.96 * error:.4f}" for mean, error in (self.item_knn, self.popularity))
        return (
            f"  signal                  NDCG@10 item-kNN {knn}, popularity {popular}, validation items of "
            f"{self.users:,} users"
        )


def measure_signal(dataset: Dataset) -> Signal | None:
    """Return how well counting ranks the validation items of some users, the same ones for the same dataset.

    Item-kNN adds up, over the latest items of a user, the cosines of the users who have them and of those who have a
    candidate. Candidates are all items that the user has not had; a tie counts against the target.

    Returns:
        None if no user has three events.
    """
    split, rng = leave_one_out(dataset), np.random.default_rng(0)
    asked = split.valid.select(np.sort(rng.permutation(len(split.valid))[:USERS]))
    if not len(asked):
        return None
    order = rng.permutation(len(split.train))
    pairs = np.cumsum(np.minimum(split.train.lengths[order], COUNTED) ** 2)
    counted = split.train.select(np.sort(order[pairs <= PAIRS]))
    N, n = dataset.num_items, len(asked)
    items, offsets = asked.gather(np.arange(n), LATEST)
    read, places = np.unique(items, return_inverse=True)
    table = by_users(counted, N, COUNTED)  # (N+1, V)
    near = table[read] @ table.T  # (distinct items read, N+1)
    history = scipy.sparse.csr_array((np.ones(len(items), np.float32), places, offsets), (n, len(read)))
    counts = split.train.item_counts(N)
    knn, popular = [], []
    step = max(1, SCORES * n // max(1, _products(history, near)))
    for start in progress(range(0, n, step), desc="measuring the signal"):
        rows = np.arange(start, min(start + step, n))
        excluded = _excluded(asked.select(rows), N)
        targets = asked.targets[rows]
        knn.append(_rank_sparse((history[rows] @ near).tocsr(), targets, excluded))
        popular.append(_rank_same(counts, targets, excluded))
    return Signal(n, *(_mean(ndcg_at_k(np.concatenate(ranks), 10)) for ranks in (knn, popular)))


def describe_fully(dataset: Dataset) -> str:
    """Return a dataset's card with its signal."""
    lines = [describe(dataset), measure_signal(dataset)]
    return "\n".join(str(line) for line in lines if line is not None)


def _products(one: Any, other: Any) -> int:
    """Return how many products of two numbers there are in the product of two sparse tables."""
    return int(np.diff(other.indptr)[one.indices].sum())


def _excluded(asked: Histories, num_items: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what no target is ranked against, the items that were had and the target itself: rows and items."""
    had, offsets = asked.gather(np.arange(len(asked)), int(asked.lengths.max()))
    rows = np.concatenate([np.repeat(np.arange(len(asked)), np.diff(offsets)), np.arange(len(asked))])
    rows, items = np.divmod(np.unique(rows * (num_items + 1) + np.concatenate([had, asked.targets])), num_items + 1)
    return rows, items


def _rank_sparse(
    scores: Any, targets: NDArray[np.int64], excluded: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Return the (n,) 0-based ranks of targets by (n, N+1) sparse scores, none of them below 0."""
    n, width = scores.shape
    own = np.asarray(scores[np.arange(n), targets]).reshape(-1) * (1 - ROUNDING)
    rows = np.repeat(np.arange(n), np.diff(scores.indptr))
    above = scores.data >= own[rows]
    rows, items = rows[above], scores.indices[above].astype(np.int64)
    counted = ~np.isin(rows * width + items, excluded[0] * width + excluded[1])
    others = width - 1 - np.bincount(excluded[0], minlength=n)
    return np.where(own > 0, np.bincount(rows[counted], minlength=n), others)


def _rank_same(
    scores: NDArray[np.int64], targets: NDArray[np.int64], excluded: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Return the (n,) 0-based ranks of targets by (N+1,) scores that are the same for all."""
    own = scores[targets]
    above: NDArray[np.int64] = len(scores) - 1 - np.searchsorted(np.sort(scores[1:]), own)
    rows, items = excluded
    return above - np.bincount(rows[scores[items] >= own[rows]], minlength=len(targets))


def _mean(values: NDArray[np.float64]) -> tuple[float, float]:
    error = float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return float(values.mean()), error
