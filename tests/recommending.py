"""What any family's run is to recommend, checked against the ranks that its test wrote."""

from pathlib import Path

import numpy as np

from scripts.recommend import load_run, recommend
from seqrec.dataset import leave_one_out


def assert_recommends_as_it_was_tested(run: Path, data_path: Path) -> None:
    """Compare a run's recommendations for the test histories with its ranks-test.npy."""
    dataset, recommender = load_run(run, data_path)
    histories = leave_one_out(dataset).test
    ranks = np.load(run / "ranks-test.npy")[histories.users]
    lists = np.zeros((len(histories), dataset.num_items), dtype=np.int64)
    for rows, items, scores in recommend(recommender, histories, dataset.num_items, True, 500, "cpu"):
        lists[rows] = items
        assert (np.diff(scores, axis=1) <= 0).all()
    found = np.array([np.flatnonzero(row == target)[0] for row, target in zip(lists, histories.targets, strict=True)])
    assert (found == ranks).mean() > 0.98  # scores that differ in their last bit may change places
    assert np.abs(found - ranks).max() <= 1
