"""The signal of a dataset against plain loops."""

import math
from pathlib import Path

import numpy as np
import pytest

from seqrec.data.dataset import Dataset, load_dataset
from seqrec.evaluation.signal import measure_signal
from tests.studies import write_dataset


def plainly(sequences: list[list[int]], num_items: int) -> tuple[float, float]:
    """Return NDCG@10 of item-kNN and of popularity, by loops over users and items."""
    every = range(1, num_items + 1)
    train = [items[:-2] if len(items) > 2 else items for items in sequences]
    users_of = {item: {user for user, items in enumerate(train) if item in items[-50:]} for item in every}
    counts = {item: sum(items.count(item) for items in train) for item in every}

    def cosine(one: int, other: int) -> float:
        both = len(users_of[one] & users_of[other])
        return both / math.sqrt(len(users_of[one]) * len(users_of[other])) if both else 0.0

    totals, asked = [0.0, 0.0], 0
    for items in sequences:
        if len(items) < 3:
            continue
        history, target = items[:-2], items[-2]
        asked += 1
        scores: list[dict[int, float]] = [{c: sum(cosine(h, c) for h in history[-20:]) for c in every}, dict(counts)]
        for place, score in enumerate(scores):
            others = [c for c in every if c not in history and c != target]
            rank = sum(score[c] >= score[target] * (1 - 1e-5) for c in others)
            totals[place] += 1 / math.log2(rank + 2) if rank < 10 else 0.0
    return totals[0] / asked, totals[1] / asked


def test_the_signal_is_that_of_plain_loops(tiny: Dataset, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    long = [rng.integers(1, 31, rng.integers(1, 90)).tolist() for _ in range(40)]
    write_dataset(tmp_path / "long", long, 30)
    for dataset in (tiny, load_dataset(tmp_path / "long")):
        items, offsets = dataset.whole_histories().gather(np.arange(dataset.num_users), 1000)
        found = measure_signal(dataset)
        assert found is not None and found.users == int((np.diff(offsets) >= 3).sum())
        knn, popular = plainly([part.tolist() for part in np.split(items, offsets[1:-1])], dataset.num_items)
        assert found.item_knn[0] == pytest.approx(knn, abs=1e-9) and found.popularity[0] == pytest.approx(popular)
        assert found.item_knn[1] > 0 and f"{knn:.4f} ±" in str(found)


def test_nobody_has_three_events(tmp_path: Path) -> None:
    write_dataset(tmp_path / "short", [[1, 2], [3]], 5)
    assert measure_signal(load_dataset(tmp_path / "short")) is None


def test_users_are_drawn_where_there_are_many(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure_signal(tiny)
    monkeypatch.setattr("seqrec.evaluation.signal.USERS", 30)
    monkeypatch.setattr("seqrec.evaluation.signal.PAIRS", 500)
    drawn = measure_signal(tiny)
    assert whole is not None and drawn is not None and drawn.users == 30 and drawn == measure_signal(tiny)
    assert drawn.item_knn != whole.item_knn
