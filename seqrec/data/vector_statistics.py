"""Statistics of item vectors, and how well they predict the next item without training.

Shapes: N items, V width, P pairs. The row of the padding is left out; distances and cosines are those of unit vectors.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqrec.data.dataset import Histories

_ROWS = 256
"""Queries per block of cosines."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of one set of item vectors."""

    width: int
    mean_cosine: float
    """Mean cosine of random pairs (anisotropy): near 1 is a narrow cone, near 0 isotropic."""
    effective_rank: float
    """Effective rank: exp of the entropy of the variances' shares."""
    directions: int
    """Dimensions for 90 % of the variance."""
    alignment: float
    """Mean squared distance of an item and the one that follows it in a history; small is good."""
    uniformity: float
    """log mean exp(-2 squared distance) of random pairs; small is spread out."""
    next_item: float
    """Share of transitions whose next item is among the ten nearest of the one before: Recall@10 without training."""
    spectrum: list[float]
    """Shares of the variance, the largest first."""


def draw_transitions(train: Histories, count: int, seed: int) -> NDArray[np.int64]:
    """Return (P, 2) items that follow one another in training histories, at most `count`, drawn by the seed."""
    items, offsets = train.gather(np.arange(len(train)), int(train.lengths.max()))
    inner = np.ones(len(items), dtype=bool)
    inner[offsets[1:] - 1] = False
    at = np.flatnonzero(inner)
    at = at[items[at] != items[at + 1]] if len(at) else at
    if len(at) > count:
        at = np.random.default_rng(seed).choice(at, count, replace=False)
    return np.stack([items[at], items[at + 1]], axis=1)


def describe_vectors(vectors: NDArray[np.float32], transitions: NDArray[np.int64], seed: int = 0) -> Statistics:
    """Return the statistics.

    Args:
        vectors: (N+1, V), row 0 padding.
        transitions: (P, 2) items and what followed them, at least one.
        seed: Of the random pairs.

    Source of alignment and uniformity: Wang & Isola (2020), https://arxiv.org/abs/2005.10242; of the effective rank:
    Roy & Vetterli (2007), https://doi.org/10.5281/zenodo.40328.
    """
    items = vectors[1:].astype(np.float64)
    centred = items - items.mean(axis=0)
    variances = np.maximum(np.linalg.eigvalsh(centred.T @ centred)[::-1], 0)
    shares = variances / max(variances.sum(), 1e-300)
    positive = shares[shares > 0]
    unit = unit_rows(vectors)
    generator = np.random.default_rng(seed)
    left, right = generator.integers(1, len(vectors), (2, 20_000))
    cosines = (unit[left] * unit[right]).sum(axis=1)[left != right]
    followed = (unit[transitions[:, 0]] * unit[transitions[:, 1]]).sum(axis=1)
    return Statistics(
        width=vectors.shape[1],
        mean_cosine=float(cosines.mean()),
        effective_rank=float(np.exp(-(positive * np.log(positive)).sum())),
        directions=int(np.searchsorted(np.cumsum(shares), 0.9) + 1),
        alignment=float((2 - 2 * followed).mean()),
        uniformity=float(np.log(np.exp(-2 * (2 - 2 * cosines)).mean())),
        next_item=_next_item_recall(unit, transitions),
        spectrum=shares.tolist(),
    )


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors of unit length; rows of zeros stay."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def nearest(unit: NDArray[np.float32], items: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return (Q, count) items of highest cosine with each of (Q,) items, themselves left out."""
    cosines = unit[items] @ unit.T
    cosines[:, 0] = -np.inf
    cosines[np.arange(len(items)), items] = -np.inf
    count = min(count, len(unit) - 2)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :count]


def _next_item_recall(unit: NDArray[np.float32], transitions: NDArray[np.int64]) -> float:
    hits = 0
    for start in range(0, len(transitions), _ROWS):
        before, after = transitions[start : start + _ROWS].T
        cosines = unit[before] @ unit.T
        cosines[:, 0] = -np.inf
        cosines[np.arange(len(before)), before] = -np.inf
        own = cosines[np.arange(len(before)), after]
        # A tie counts against the target, as in every ranking here.
        hits += int(((cosines >= own[:, None]).sum(axis=1) <= 10).sum())
    return hits / len(transitions)
