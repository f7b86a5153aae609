"""Confidence intervals for differences of two groups over users and seeds, and Holm's correction.

Shapes: S seeds of a group, U users, T tests.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit

LEVEL = 0.95
SMALLEST_P = 1e-12
"""Smallest p that is reported."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference with its interval, over users and seeds; if a group has one seed, over users alone."""

    mean: float
    low: float
    high: float
    p: float | None
    """Two-sided; None with one seed, which cannot tell a better method from a lucky seed."""
    user_error: float
    """Standard error that comes from the users."""
    seed_error: float | None
    """Standard error that comes from the seeds; None with one seed."""


def compare_means(one: NDArray[np.float64], other: NDArray[np.float64]) -> Interval:
    """Return the mean difference of two groups over the same users with its 95 % interval and two-sided p.

    A metric of user u under seed s of group g is m_g + a_gu + b_gs + e_gus, all random but m: the difference D of the
    two means has the variance A + B, one part for each way to draw again:

        A = Var(a_1u - a_2u) / U        users, who are the same in both groups
        B = sum over g of (Var(b_g) + Var(e_g) / U) / S_g        seeds, and what a seed does to single users

    B is estimated by the variances of the seeds' means, dividing by S - 1, with Welch's degrees of freedom w; A by the
    variance of the users' differences less the part of it that e makes, at least 0. The interval is

        D ± sqrt(t(U - 1)² A + t(w)² B)

    with the quantile of each part's own degrees of freedom. (One Satterthwaite number for the sum would cover 92 % with
    three seeds a side of which one side alone varies; resampling three seeds, whose variance is a third too small,
    far less.) p is where the interval ends at zero. Simulated with normal parts, it covers at least 93.8 % with two or
    three seeds a side, mostly 95 to 98 %; with three against two, 91 % where only the two vary.

    Equal seed numbers in the two groups are not a pair: they draw different weights, batches and masks once the models
    differ, and pairing would halve the degrees of freedom. Where they did move both groups alike, the interval is too
    wide, not too narrow.

    Args:
        one: (S, U) float64, at least two users.
        other: (S', U), the same users.

    Raises:
        ValueError: If users are missing or a metric is not finite.

    Source: McCullagh (2000), Resampling and exchangeable arrays, https://doi.org/10.2307/3318577, and Owen (2007), The
    pigeonhole bootstrap, https://arxiv.org/abs/0712.1111, for the variance of a mean over two crossed samples; Howe
    (1974), Approximate confidence limits on the mean of X + Y, JASA 69, 789-794, for the root of the summed squares;
    Welch (1947), https://doi.org/10.1093/biomet/34.1-2.28, for w.
    """
    if one.shape[1] != other.shape[1] or one.shape[1] < 2 or not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError(f"expected finite metrics of the same users, two or more, got {one.shape} and {other.shape}")
    users = one.shape[1]
    difference = one.mean(axis=0) - other.mean(axis=0)
    mean = float(difference.mean())
    by_users = float(difference.var(ddof=1)) / users
    if min(len(one), len(other)) == 1:
        half = _quantile(1 - LEVEL, users - 1) * math.sqrt(by_users)
        return Interval(mean, mean - half, mean + half, None, math.sqrt(by_users), None)
    parts = [_split_variance(group) for group in (one, other)]
    by_users = max(0.0, by_users - sum(shared for _, shared in parts))
    by_seeds = sum(between for between, _ in parts)
    spread = sum(between**2 / (len(group) - 1) for (between, _), group in zip(parts, (one, other), strict=True))
    freedom = by_seeds**2 / spread if spread > 0 else 1.0

    def half_width(p: float) -> float:
        return math.sqrt(_quantile(p, users - 1) ** 2 * by_users + _quantile(p, freedom) ** 2 * by_seeds)

    half = half_width(1 - LEVEL)
    p = _find_p(half_width, abs(mean)) if half > 0 else 1.0  # without any spread there is no test
    return Interval(mean, mean - half, mean + half, p, math.sqrt(by_users), math.sqrt(by_seeds))


def _split_variance(group: NDArray[np.float64]) -> tuple[float, float]:
    """Return the variance of a group's mean from its seeds, and the part that the users' differences contain, too.

    Args:
        group: (S, U), two seeds or more.
    """
    seeds, users = group.shape
    own = group - group.mean(axis=0)
    by_seed = own.mean(axis=1, keepdims=True)
    between = float(by_seed.var(ddof=1)) / seeds
    residual = float(((own - by_seed) ** 2).sum()) / ((users - 1) * (seeds - 1))
    return between, residual / (seeds * users)


def _quantile(p: float, freedom: float) -> float:
    """Return Student's two-sided quantile: |t| exceeds it with probability p."""
    return -float(stdtrit(freedom, p / 2))


def _find_p(half_width: Callable[[float], float], distance: float) -> float:
    """Return the p at which the interval just reaches zero, at least `SMALLEST_P`."""
    if half_width(SMALLEST_P) <= distance:
        return SMALLEST_P
    return float(10 ** brentq(lambda x: half_width(10**x) - distance, math.log10(SMALLEST_P), 0))


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (T,) Holm-adjusted p: the i-th smallest times (T - i), i from 0, never falling, at most 1.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]

    Source: Holm (1979), https://www.jstor.org/stable/4615733.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted
