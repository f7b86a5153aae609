"""Intervals over users and seeds, against hand, scipy's tests and simulation."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from seqrec.comparison.intervals import SMALLEST_P, compare_means, holm

NOTHING = np.zeros((2, 2))


def draw_group(
    generator: np.random.Generator, seeds: int, users: NDArray[np.float64], by_seed: float, noise: float
) -> NDArray[np.float64]:
    """Return (S, U) metrics: what each user has in common over seeds, a shift of each seed, and noise."""
    shift = generator.normal(0, 1, (seeds, 1)) * by_seed
    return users + shift + generator.normal(0, noise, (seeds, len(users)))


def test_interval_by_hand() -> None:
    # Seed means 2 and 4 (variance 2, halved: B = 1, one degree of freedom), user means 2 and 4 (A = 2 / 2 = 1, one
    # degree of freedom), no interaction. t(1) is 12.706, so the half width is 12.706 √2.
    found = compare_means(np.array([[1.0, 3.0], [3.0, 5.0]]), NOTHING)
    assert (found.mean, found.user_error, found.seed_error) == (3, 1, 1)
    assert found.high - found.mean == found.mean - found.low == pytest.approx(12.7062 * math.sqrt(2), abs=1e-3)
    # The user means 1 and 4 have a variance of 4.5. Beside seeds and users there are residuals of ±.5 four times: a
    # variance of 1, of which 1 / (2 · 2) is taken from 4.5 / 2.
    found = compare_means(np.array([[0.5, 2.5], [1.5, 5.5]]), NOTHING)
    assert found.user_error == pytest.approx(math.sqrt(4.5 / 2 - 1 / 4))
    assert found.seed_error == pytest.approx(math.sqrt(2 / 2))


def test_one_seed_gives_the_paired_t_interval_over_users_and_no_p() -> None:
    generator = np.random.default_rng(0)
    one, other = draw_group(generator, 1, np.zeros(30), 0, 1), draw_group(generator, 3, np.zeros(30), 0, 1)
    found = compare_means(one, other)
    expected = stats.ttest_1samp(one[0] - other.mean(axis=0), 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.p is None and found.seed_error is None


def test_where_only_seeds_vary_it_is_welchs_test_of_their_means() -> None:
    means = np.array([0.1, 0.13, 0.11]), np.array([0.08, 0.083, 0.081, 0.079])
    found = compare_means(*(np.tile(own[:, None], 50) for own in means))
    welch = stats.ttest_ind(*means, equal_var=False)
    expected = welch.confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.p == pytest.approx(welch.pvalue)


def test_p_is_where_the_interval_ends_at_zero() -> None:
    generator = np.random.default_rng(0)
    one, other = (draw_group(generator, 3, generator.normal(0, 1, 40), 0.2, 0.5) for _ in range(2))
    found = compare_means(one, other)
    assert compare_means(one - found.low, other).p == pytest.approx(0.05)
    assert compare_means(one - found.mean, other).p == pytest.approx(1)
    assert compare_means(one + 1e9, other).p == SMALLEST_P
    assert compare_means(one, one).p == 1
    assert compare_means(np.ones((3, 5)), np.zeros((3, 5))).p == 1  # no spread to judge a difference by


def cover(seeds: tuple[int, int], by_seed: tuple[float, float], draws: int = 1500) -> float:
    """Return how often the 95 % interval holds the true difference, 0, with users and seeds drawn again each time."""
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(draws):
        users = generator.exponential(1, 50)  # skewed, as metrics of users are
        own = users + generator.normal(0, 0.5, 50)
        one, other = (draw_group(generator, *drawn, 0.7) for drawn in zip(seeds, (own, users), by_seed, strict=True))
        found = compare_means(one, other)
        hits += found.low <= 0 <= found.high
    return hits / draws


# The standard error of such a share is .006. Users alone give the difference an error of .107; a seed deviation of .13
# on both sides adds as much again.
@pytest.mark.parametrize(
    "by_seed", [(0.0, 0.0), (0.13, 0.13), (0.2, 0.0), (0.0, 0.5), (0.5, 0.5), (5.0, 5.0), (0.0, 5.0)]
)
def test_three_seeds_cover_from_no_seed_variance_to_nothing_else(by_seed: tuple[float, float]) -> None:
    assert 0.935 <= cover((3, 3), by_seed) <= 0.99


def test_two_seeds_cover() -> None:
    assert 0.93 <= cover((2, 2), (0.13, 0.13)) <= 0.995
    assert 0.93 <= cover((2, 2), (0.0, 5.0)) <= 0.995


def test_users_without_a_pair_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same users, two or more, got \(2, 2\) and \(2, 3\)"):
        compare_means(NOTHING, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="expected finite metrics"):
        compare_means(NOTHING * np.nan, NOTHING)
    with pytest.raises(ValueError, match="two or more"):
        compare_means(np.zeros((3, 1)), np.zeros((3, 1)))


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, then never falling: .04 .06 .06 .06.
    assert holm(np.array([0.04, 0.01, 0.03, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.9, 0.6])) == pytest.approx([1.0, 1.0])
    assert len(holm(np.zeros(0))) == 0
