"""Training negatives: what each loss gets, and how likely each item is among them."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Histories
from seqrec.nn.losses import LossOptions, NegativeSource
from seqrec.nn.negatives import Negatives, NegativeSampler

LISTS = [[1, 2, 2], [4], [3, 5, 6, 7, 8]]
SEQUENCES = Histories(
    np.array([item for row in LISTS for item in row], dtype=np.int32),
    np.arange(3),
    np.array([0, 3, 4]),
    np.array([3, 4, 9]),
)
NO_TARGETS = np.zeros(0, dtype=np.int64)


def draw(
    num_items: int,
    counts: list[int] | None = None,
    rows: tuple[int, ...] = (2, 0),
    seed: int = 0,
    targets: NDArray[np.int64] = NO_TARGETS,
    **options: Any,
) -> Negatives:
    draws_none = options["loss"] in ("ce", "bce") or options.get("negatives") == "in_batch"
    few = {} if draws_none else {"num_negatives": 4}
    sampler = NegativeSampler(LossOptions(**few | options), SEQUENCES, num_items)
    key = BatchKey(np.array(rows), 0, seed)
    return sampler(key, 0, key.rows, np.array(counts or [5, 3]), targets)


def test_the_full_softmax_needs_none() -> None:
    assert draw(10, loss="ce").items.shape == (0,)


def test_a_sampled_softmax_shares_distinct_items() -> None:
    drawn = [draw(10, loss="sampled_softmax", seed=seed).items for seed in range(500)]
    counts = np.bincount(np.concatenate(drawn))
    assert counts[0] == 0
    assert len(counts) == 11
    assert counts[1:].min() > 150  # of 200 expected
    assert all(len(set(items.tolist())) == 4 for items in drawn)
    assert sorted(draw(3, loss="sampled_softmax").items) == [1, 2, 3]  # no more than there are
    assert draw(10, loss="gbce").items.shape == (4,)


@pytest.mark.parametrize("source", ["uniform", "popularity", "in_batch", "mixed"])
def test_the_chance_is_how_often_an_item_is_among_them(source: NegativeSource) -> None:
    generator, events = np.random.default_rng(5), SEQUENCES.items
    three: dict[str, Any] = {} if source == "in_batch" else {"num_negatives": 3}
    found, trials, chance = np.zeros(11), np.zeros(11), np.zeros(11)
    for seed in range(5000):
        targets = generator.choice(events, 4).astype(np.int64)
        drawn = draw(10, seed=seed, targets=targets, loss="sampled_softmax", negatives=source, **three)
        items = drawn.items.numpy()
        assert len(set(items.tolist())) == len(items)
        chance[items] = drawn.log_chance.exp()
        # For the first position: its own target is no negative, and the chance is that of the other draws.
        trials[np.arange(11) != targets[0]] += 1
        found[items[items != targets[0]]] += 1
    drawable = np.flatnonzero(chance)
    assert drawable.tolist() == list(range(1, 9 if source in ("popularity", "in_batch") else 11))
    np.testing.assert_allclose(found[drawable] / trials[drawable], chance[drawable], atol=0.025)


def test_binary_cross_entropy_gets_one_unseen_item_per_target() -> None:
    negatives = draw(10, [4000, 4000], loss="bce").items
    first, second = np.bincount(negatives[:4000], minlength=11), np.bincount(negatives[4000:], minlength=11)
    assert first[[0, 3, 5, 6, 7, 8]].sum() == 0  # row 2's own, and padding
    assert second[[0, 1, 2]].sum() == 0
    assert first[[1, 2, 4, 9, 10]].tolist() == pytest.approx([800] * 5, rel=0.12)
    assert second[3:].tolist() == pytest.approx([500] * 8, rel=0.15)


def test_who_has_everything_gets_something() -> None:
    assert draw(1, [3], rows=(1,), loss="bce").items.tolist() == [1, 1, 1]
    one_left = draw(8, [50], rows=(2,), loss="bce").items
    assert set(one_left.tolist()) <= {1, 2, 4}


def test_what_does_not_go_together() -> None:
    with pytest.raises(ValueError, match="--negatives mixed is for --loss sampled_softmax, not gbce"):
        LossOptions(loss="gbce", negatives="mixed")
    with pytest.raises(ValueError, match=r"--gbce_t 0\.5 is for --loss gbce, not sampled_softmax"):
        LossOptions(loss="sampled_softmax", gbce_t=0.5)
    with pytest.raises(ValueError, match="--num_negatives 9 is for --loss sampled_softmax, nce and gbce, not ce"):
        LossOptions(num_negatives=9)
    with pytest.raises(ValueError, match="--num_negatives 9 is not for --negatives in_batch, which draws none"):
        LossOptions(loss="sampled_softmax", negatives="in_batch", num_negatives=9)
    with pytest.raises(ValueError, match="--num_negatives must be at least 1"):
        LossOptions(num_negatives=0)


def test_the_options_decide_alone() -> None:
    first, again = (draw(10, loss="sampled_softmax", negatives="popularity", seed=3) for _ in range(2))
    assert torch.equal(first.items, again.items)
    assert torch.equal(first.log_chance, again.log_chance)
