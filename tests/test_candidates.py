"""Sampled candidates: distinct, unseen, uniform, and the same whatever the batches."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.dataset import Dataset, load_dataset
from seqrec.evaluation.candidates import sample_negatives
from tests.conftest import write_dataset


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """2,000 users over 30 items, each with the 5 that follow her number."""
    histories = [[(user + step) % 30 + 1 for step in range(5)] for user in range(2000)]
    return load_dataset(write_dataset(tmp_path_factory.mktemp("data") / "crowd", histories, 30))


def test_distinct_unseen_and_in_range(crowd: Dataset) -> None:
    drawn = sample_negatives(crowd, np.arange(2000), 25, seed=1)  # all that is left to each
    for user, row in enumerate(drawn):
        seen = crowd.items[crowd.offsets[user] : crowd.offsets[user + 1]].tolist()
        assert sorted(row.tolist()) == sorted(set(range(1, 31)) - set(seen))


@given(st.lists(st.integers(0, 1999), unique=True, min_size=1, max_size=20), st.integers(1, 20))
def test_a_users_draw_is_hers_alone(crowd: Dataset, users: list[int], size: int) -> None:
    together = sample_negatives(crowd, np.array(users), size, seed=5)
    alone = [sample_negatives(crowd, np.array([user]), size, seed=5)[0].tolist() for user in users]
    assert together.tolist() == alone
    fewer = sample_negatives(crowd, np.array(users[::-1]), max(1, size - 3), seed=5)
    assert fewer[::-1].tolist() == [row[: max(1, size - 3)] for row in alone]  # a larger sample only adds


def test_uniform_and_different_by_seed(crowd: Dataset) -> None:
    twelves = np.arange(11, 2000, 30)  # users with the same five items
    counts = np.zeros(31)
    for seed in range(40):
        drawn = sample_negatives(crowd, twelves, 10, seed)
        assert (drawn != sample_negatives(crowd, twelves, 10, seed + 1000)).any(axis=1).all()
        counts += np.bincount(drawn.ravel(), minlength=31)
        assert len({tuple(row) for row in drawn.tolist()}) == len(twelves)  # nor are two users drawn alike
    free = counts[counts > 0]
    assert len(free) == 25
    expected = 40 * len(twelves) * 10 / 25
    # The sum has 24 degrees of freedom; without replacement it is smaller still. 51.2 is passed once in a thousand.
    assert ((free - expected) ** 2 / expected).sum() < 51.2


def mix(x: int) -> int:
    """SplitMix64, one number at a time."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


@pytest.mark.parametrize("seed", [98765, 0, -1])
def test_the_values_are_those_of_the_stream(crowd: Dataset, seed: int) -> None:
    # Runs of different years are compared on the same candidates: these must never change.
    for user in (0, 7):
        seen = crowd.items[crowd.offsets[user] : crowd.offsets[user + 1]].tolist()
        stream = (mix((user << 20) + draw ^ mix(seed % 2**64)) % 30 + 1 for draw in range(1000))
        expected = list(dict.fromkeys(item for item in stream if item not in seen))[:25]
        assert sample_negatives(crowd, np.array([user]), 25, seed)[0].tolist() == expected


def test_one_item_left(tmp_path: Path) -> None:
    dataset = load_dataset(write_dataset(tmp_path / "shop", [list(range(2, 1001)), [1]], 1000))
    assert sample_negatives(dataset, np.array([0]), 1, seed=3).tolist() == [[1]]


def test_no_user_and_users_without_history(tmp_path: Path) -> None:
    dataset = load_dataset(write_dataset(tmp_path / "shop", [[], [1, 2], []], 3))
    assert sample_negatives(dataset, np.array([], dtype=np.int64), 2, seed=0).shape == (0, 2)
    assert sorted(sample_negatives(dataset, np.array([2]), 3, seed=0)[0].tolist()) == [1, 2, 3]


def test_errors(crowd: Dataset) -> None:
    with pytest.raises(ValueError, match=r"user 4 has only 25 of 30 items left.*--sample_size 26.*--sample_size -1"):
        sample_negatives(crowd, np.array([4, 5]), 26, seed=0)
    with pytest.raises(ValueError, match="at least 1 to sample candidates, got 0; use -1 to rank all"):
        sample_negatives(crowd, np.array([4]), 0, seed=0)
