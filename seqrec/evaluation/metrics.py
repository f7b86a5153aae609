"""Ranking metrics of held-out items. Shapes: B targets, each a user's, N score columns."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec.data.protocol import KS


def rank_of_target(scores: Tensor, target: Tensor) -> Tensor:
    """Return each target's 0-based position in its user's ranking.

    Args:
        scores: (B, N) float32, higher is better; -inf marks columns that are not candidates.
        target: (B,) int64 column of the held-out item.

    Returns:
        (B,) int64 in [0, N).

    Raises:
        ValueError: If shapes disagree, a score is NaN, or a target is not a candidate.
    """
    if target.shape != scores.shape[:1]:
        raise ValueError(f"target must have shape ({len(scores)},), got {tuple(target.shape)}")
    if scores.isnan().any():
        raise ValueError("scores contain NaN: the model has diverged; lower --lr or use --precision 32-true")
    own = scores.gather(1, target[:, None])
    if own.isneginf().any():
        raise ValueError("a target scores -inf: was the held-out item masked as already seen?")
    # Ties count against the target: a model that scores all items alike must come last, not first.
    return (scores >= own).sum(dim=1) - 1


def ndcg_at_k(rank: Tensor, k: int) -> Tensor:
    """Return each user's NDCG@k, (B,) float64 in [0, 1], from (B,) 0-based ranks.

    Source: Järvelin & Kekäläinen (2002), https://doi.org/10.1145/582415.582418. With one relevant
    item the ideal DCG is 1, so the discount of the hit is already normalised.
    """
    _check_k(k)
    return torch.where(rank < k, 1 / torch.log2(rank.double() + 2), 0.0)


def recall_at_k(rank: Tensor, k: int) -> Tensor:
    """Return each user's Recall@k, (B,) float64 in {0, 1}: with one relevant item also the hit rate."""
    _check_k(k)
    return (rank < k).double()


def reciprocal_rank(rank: Tensor) -> Tensor:
    """Return each user's 1 / (rank + 1), (B,) float64, without a cutoff."""
    return 1 / (rank.double() + 1)


def auc(rank: Tensor, num_candidates: Tensor | int) -> Tensor:
    """Return each user's share of the other candidates ranked below the target, (B,) float64 in [0, 1].

    Args:
        rank: (B,) 0-based.
        num_candidates: Candidates of each user, the target included: (B,) or one number; at least 1.
    """
    others = torch.as_tensor(num_candidates, dtype=torch.float64, device=rank.device) - 1
    return torch.where(others > 0, 1 - rank.double() / others.clamp(min=1), 1.0)


def measure(rank: Tensor, num_candidates: Tensor | int, ks: tuple[int, ...] = KS) -> dict[str, Tensor]:
    """Return every metric of each target, (B,) float64."""
    metrics = {f"NDCG@{k}": ndcg_at_k(rank, k) for k in ks} | {f"Recall@{k}": recall_at_k(rank, k) for k in ks}
    return metrics | {"MRR": reciprocal_rank(rank), "AUC": auc(rank, num_candidates)}


def mean_by_user(values: NDArray[np.float64], users: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each user's mean over the targets, users ascending: (U,) float64 from (n,) values and (n,) users."""
    _, owner, counts = np.unique(users, return_inverse=True, return_counts=True)
    return np.bincount(owner, values) / counts


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
