"""Training negatives: what each loss gets, never an item of the own sequence, uniform over the rest."""

import numpy as np
import pytest
from numpy.typing import NDArray

from seqrec.dataset import Histories
from seqrec.losses import Loss
from seqrec.negatives import draw_negatives

LISTS = [[1, 2, 2], [4], [3, 5, 6, 7, 8]]
SEQUENCES = Histories(
    np.array([item for row in LISTS for item in row], dtype=np.int32),
    np.arange(3),
    np.array([0, 3, 4]),
    np.array([3, 4, 9]),
)


def draw(
    loss: Loss, counts: list[int], num_items: int, num_negatives: int = 4, seed: int = 0, rows: tuple[int, ...] = (2, 0)
) -> NDArray[np.int64]:
    generator = np.random.default_rng(seed)
    return draw_negatives(loss, generator, SEQUENCES, np.array(rows), np.array(counts), num_items, num_negatives)


def test_the_full_softmax_needs_none() -> None:
    assert draw("ce", [5, 3], 10).shape == (0,)


def test_a_sampled_softmax_shares_distinct_items() -> None:
    counts = np.bincount(np.concatenate([draw("sampled_softmax", [5, 3], 10, seed=seed) for seed in range(500)]))
    assert counts[0] == 0
    assert len(counts) == 11
    assert counts[1:].min() > 150  # of 200 expected
    assert all(len(set(draw("sampled_softmax", [5, 3], 10, seed=seed))) == 4 for seed in range(20))
    assert sorted(draw("sampled_softmax", [5, 3], 3)) == [1, 2, 3]  # no more than there are


def test_binary_cross_entropy_gets_one_unseen_item_per_target() -> None:
    negatives = draw("bce", [4000, 4000], 10)
    first, second = np.bincount(negatives[:4000], minlength=11), np.bincount(negatives[4000:], minlength=11)
    assert first[[0, 3, 5, 6, 7, 8]].sum() == 0  # row 2's own, and padding
    assert second[[0, 1, 2]].sum() == 0
    assert first[[1, 2, 4, 9, 10]].tolist() == pytest.approx([800] * 5, rel=0.12)
    assert second[3:].tolist() == pytest.approx([500] * 8, rel=0.15)


def test_who_has_everything_gets_something() -> None:
    assert draw("bce", [3], 1, rows=(1,)).tolist() == [1, 1, 1]
    one_left = draw("bce", [50], 8, rows=(2,))
    assert set(one_left.tolist()) <= {1, 2, 4}
