"""Ranking metrics: values from a pencil, and what must hold of any ranks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.evaluation.metrics import (
    auc,
    mean_by_user,
    measure,
    ndcg_at_k,
    recall_at_k,
    reciprocal_rank,
)

RANKS = np.array([0, 1, 9, 10])  # first, second, tenth, eleventh


def test_ndcg_by_hand() -> None:
    # 1 / log2(rank + 2): log2 2 = 1, log2 3, log2 11; the eleventh is outside the first ten.
    expected = [1.0, 1 / math.log2(3), 1 / math.log2(11), 0.0]
    assert ndcg_at_k(RANKS, 10).tolist() == pytest.approx(expected, abs=1e-12)
    assert expected[1:3] == pytest.approx([0.63093, 0.28906], abs=1e-5)


def test_recall_by_hand() -> None:
    assert recall_at_k(RANKS, 10).tolist() == [1, 1, 1, 0]
    assert recall_at_k(RANKS, 1).tolist() == [1, 0, 0, 0]


def test_reciprocal_rank_by_hand() -> None:
    assert reciprocal_rank(RANKS).tolist() == pytest.approx([1, 1 / 2, 1 / 10, 1 / 11])


def test_auc_by_hand() -> None:
    # Of 20 other candidates 0, 1, 9 and 10 stand before the target.
    assert auc(RANKS, 21).tolist() == pytest.approx([1, 19 / 20, 11 / 20, 10 / 20])
    assert auc(np.array([0, 4]), np.array([1, 5])).tolist() == [1, 0]  # alone; last of five


def test_metrics_of_each_target_and_their_mean_by_user() -> None:
    metrics = measure(np.array([0, 0, 1]), 3, ks=(1,))
    assert {name: values.tolist() for name, values in metrics.items()} == {
        "NDCG@1": [1, 1, 0],
        "Recall@1": [1, 1, 0],
        "MRR": [1, 1, 0.5],
        "AUC": [1, 1, 0.5],
    }
    assert mean_by_user(metrics["MRR"], np.array([7, 2, 7])).tolist() == [1, 0.75]
    assert mean_by_user(metrics["MRR"], np.array([7, 9, 2])).tolist() == [0.5, 1, 1]


@given(st.lists(st.integers(0, 200), min_size=1, max_size=30), st.integers(1, 60))
def test_ndcg_lies_between_mrr_of_hits_and_recall(ranks: list[int], k: int) -> None:
    rank = np.array(ranks)
    ndcg, recall = ndcg_at_k(rank, k), recall_at_k(rank, k)
    assert (ndcg <= recall).all()
    assert (ndcg >= reciprocal_rank(rank) * recall).all()


def test_errors() -> None:
    for metric in (ndcg_at_k, recall_at_k):
        with pytest.raises(ValueError, match="k must be at least 1, got 0"):
            metric(RANKS, 0)
