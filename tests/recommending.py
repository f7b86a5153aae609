"""What any family's run is to recommend, checked against the ranks that its test wrote."""

from pathlib import Path

import numpy as np

from seqrec.data.splits import leave_one_out
from seqrec.training.recommend import recommend
from seqrec.training.restore import load_run


def assert_recommends_as_it_was_tested(run: Path, data_path: Path) -> None:
    """Compare a run's recommendations for the test histories with its ranks-test.npy."""
    dataset, recommender = load_run(run, data_path)
    histories = leave_one_out(dataset).test
    ranks = np.load(run / "ranks-test.npy")[histories.users]
    scores = np.full((len(histories), dataset.num_items + 1), np.nan)
    for rows, items, found in recommend(recommender, histories, dataset.num_items, True, 500, "cpu"):
        scores[rows[:, None], items] = found
        assert (np.diff(found, axis=1) <= 0).all()
    scores = scores[:, 1:]
    assert np.isfinite(scores).all()  # each item once
    own = scores[np.arange(len(scores)), histories.targets - 1][:, None]
    # Scores that differ in their last bits may change places.
    close = 1e-5 * np.abs(scores).max()
    assert ((scores > own + close).sum(axis=1) <= ranks).all()
    assert (ranks < (scores >= own - close).sum(axis=1)).all()
