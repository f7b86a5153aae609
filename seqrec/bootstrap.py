"""Paired bootstrap over users, and Holm's correction.

Shapes: U users, K distinct differences, R resamples, T tests.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_DISTINCT = 1024
"""More distinct differences than this are gathered in bins, so that the work does not grow with the users."""
CHUNK_COUNTS = 1 << 22
"""Resample counts held at once (32 MiB of int64)."""

ZERO = 1e-12
"""Resampled means this near to zero are zero."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference over users with what the bootstrap says about it."""

    mean: float
    low: float
    """2.5 % quantile of the resampled means."""
    high: float
    """97.5 % quantile of the resampled means."""
    p: float
    """Two-sided bootstrap p, at least 2 / (resamples + 1)."""


def paired_bootstrap(
    difference: NDArray[np.float64],
    resamples: int,
    generator: np.random.Generator,
    chunk_counts: int = CHUNK_COUNTS,
) -> Interval:
    """Return the mean of paired differences with its 95 % interval and two-sided p.

    The interval is the percentile interval; p inverts it: twice the smaller share of resampled means on
    either side of zero, each share counted as (1 + hits) / (1 + resamples).

    Args:
        difference: (U,) float64, one model's per-user metric minus the other's; at least one user.
        resamples: At least 1.
        generator: Its stream alone decides the draw; the chunks do not.
        chunk_counts: Resample counts held at once.

    Raises:
        ValueError: If there is no user, no resample, or a difference is not finite.

    Source: Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapters 13 and 15.
    """
    if not len(difference) or resamples < 1:
        raise ValueError(f"a bootstrap needs users and resamples, got {len(difference)} and {resamples}")
    if not np.isfinite(difference).all():
        raise ValueError("a per-user difference is not finite")
    means = resample_means(difference, resamples, generator, chunk_counts)
    low, high = np.quantile(means, [0.025, 0.975])
    # A mean of zero must count on both sides, whatever the last bit of its sum.
    hits = min(int((means <= ZERO).sum()), int((means >= -ZERO).sum()))
    p = min(1.0, 2 * (1 + hits) / (1 + resamples))
    return Interval(float(difference.mean()), float(low), float(high), p)


def resample_means(
    values: NDArray[np.float64],
    resamples: int,
    generator: np.random.Generator,
    chunk_counts: int = CHUNK_COUNTS,
) -> NDArray[np.float64]:
    """Return (R,) means of `values` over users drawn with replacement.

    Users with the same value are interchangeable, so how often each *distinct* value is drawn is one
    multinomial: the same distribution as drawing U user indices, at K instead of U numbers per resample.
    """
    distinct, counts = gather_values(values)
    shares = counts / counts.sum()
    rows = max(1, chunk_counts // len(distinct))
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        means[start:stop] = generator.multinomial(len(values), shares, size=stop - start) @ distinct
    return means / len(values)


def gather_values(
    values: NDArray[np.float64], limit: int = MAX_DISTINCT
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (K,) values and (K,) how many users hold each, most frequent first.

    Values equal to 12 decimals are one. More than `limit` are replaced by the means of `limit` bins of equal
    width w: the overall mean stays and the variance loses at most w² / 4, 1e-6 for differences in [-1, 1].
    """
    distinct, counts = np.unique(values.round(12), return_counts=True)
    if len(distinct) > limit:
        span = distinct[-1] - distinct[0]
        bins = np.minimum(((distinct - distinct[0]) / span * limit).astype(np.int64), limit - 1)
        sums, counts = np.bincount(bins, distinct * counts), np.bincount(bins, counts).astype(np.int64)
        distinct, counts = sums[counts > 0] / counts[counts > 0], counts[counts > 0]
    # numpy draws a multinomial value by value and stops once every user is placed: frequent values first.
    order = np.argsort(-counts, kind="stable")
    return distinct[order], counts[order]


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (T,) Holm-adjusted p: the i-th smallest times (T - i), i from 0, never falling, at most 1.

    Source: Holm (1979), https://www.jstor.org/stable/4615733.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted
