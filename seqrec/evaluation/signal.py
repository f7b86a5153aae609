"""Whether next items follow from earlier ones: what counting finds before anything is trained.

Shapes: n users, N items, V users who are counted, E events of histories.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from seqrec.basics.progress import progress
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
BLOCK = 1 << 24
"""Scores in memory at one time: 64 MiB."""


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
    ranks: list[list[NDArray[np.int64]]] = [[], []]
    step = max(1, BLOCK // (N + 1))
    for start in progress(range(0, n, step), desc="measuring the signal"):
        rows = np.arange(start, min(start + step, n))
        had = asked.gather(rows, int(asked.lengths[rows].max()))
        scores = (history[rows] @ near).toarray()
        for found, by in ((ranks[0], scores), (ranks[1], np.tile(counts.astype(np.float32), (len(rows), 1)))):
            found.append(_rank(by, asked.select(rows), *had))
    knn, popular = (ndcg_at_k(np.concatenate(found), 10) for found in ranks)
    return Signal(n, _mean(knn), _mean(popular))


def _rank(
    scores: NDArray[np.float32], asked: Histories, had: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the (n,) 0-based ranks of targets by (n, N+1) scores, which are changed; (E,) items were had."""
    rows = np.arange(len(asked))
    own = scores[rows, asked.targets] * (1 - ROUNDING)
    scores[:, 0] = -np.inf
    scores[np.repeat(rows, np.diff(offsets)), had] = -np.inf
    scores[rows, asked.targets] = -np.inf
    ranks: NDArray[np.int64] = np.count_nonzero(scores >= own[:, None], axis=1)
    return ranks


def _mean(values: NDArray[np.float64]) -> tuple[float, float]:
    error = float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return float(values.mean()), error
