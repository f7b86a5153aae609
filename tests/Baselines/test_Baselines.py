"""Popularity, recency and favourites: counts from a pencil, and whole runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from Baselines.counting import HALF_LIVES, all_events
from Baselines.data import event_ages, score_items
from Baselines.model import Favourites
from Baselines.options import Config
from seqrec.data.dataset import load_dataset
from seqrec.data.protocol import CANDIDATE_SEED
from seqrec.data.splits import leave_one_out
from seqrec.evaluation.candidates import sample_negatives
from seqrec.training.restore import load_run
from tests import forked
from tests.conftest import write_dataset
from tests.histories import as_histories
from tests.recommending import assert_recommends_as_it_was_tested


def run(data: Path, runs: Path, *flags: str) -> str:
    """Run a baseline and return what it said."""
    runs.mkdir(exist_ok=True)
    where = ("--data_path", data, "--runs_dir", runs)
    forked.run_script("Baselines/finetune.py", *where, *flags, output=runs / "said")
    return (runs / "said").read_text()


def test_ages_by_hand(tmp_path: Path) -> None:
    histories = [[1, 2, 3, 1, 1], [2, 3]]
    plain = leave_one_out(load_dataset(write_dataset(tmp_path / "plain", histories, 3)))
    items, ages = event_ages(plain.train)
    assert items.tolist() == [1, 2, 3, 2, 3]
    assert ages.tolist() == [1, 0.5, 0, 0.5, 0]  # two, one and no events after it
    path = write_dataset(tmp_path / "timed", histories, 3, [[0, 10, 40, 90, 99], [20, 30]])
    assert event_ages(leave_one_out(load_dataset(path)).train)[1].tolist() == [1, 0.75, 0, 0.5, 0.25]


def test_scores_by_hand() -> None:
    items, ages = np.array([1, 2, 2, 3]), np.array([0, 0.25, 1, 0.5])
    assert score_items(items, ages, 4, None).tolist() == [0, 1, 2, 1, 0]
    assert score_items(items, ages, 4, 0.25).tolist() == [0, 1, 0.5 + 1 / 16, 0.25, 0]


def test_favourites_by_hand() -> None:
    module = Favourites(5, (10,))
    module.take(np.array([0, 4, 9, 1, 6, 6]), half_life=1)
    histories = as_histories([[1, 3, 3], [4], [2, 3, 2, 1]])
    scores = module.scores(all_events(histories, np.array([0, 2]))) - 1e-6 * module.popularity
    expected = [[0, 1.25, 0, 2.5, 0, 0], [0, 2, 1.625, 1.25, 0, 0]]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64))
    assert module.popularity.tolist() == [0, 0.4, 0.9, 0.1, 0.6, 0.6]


@pytest.mark.parametrize("flags", [(), ("--half_life", "0.1", "--filter_seen"), ("--sample_size", "9")])
def test_favourites_are_ranked_by_own_counts_then_by_popularity(
    flags: tuple[str, ...], tiny_path: Path, tmp_path: Path
) -> None:
    run(tiny_path, tmp_path, "--baseline", "favourites", *flags)
    folder, dataset = tmp_path / "Baselines/tiny/favourites", load_dataset(tiny_path)
    split = leave_one_out(dataset)
    half_life = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]["half_life"].item()
    counts, ranks = split.train.item_counts(40), np.load(folder / "ranks-test.npy")
    drawn = sample_negatives(dataset, split.test.users, 9, CANDIDATE_SEED)
    for row, user in enumerate(split.test.users):
        events, target = split.test.gather(np.array([row]), 99)[0].tolist(), int(split.test.targets[row])
        own = dict.fromkeys(range(1, 41), 0.0)
        for age, item in enumerate(reversed(events)):
            own[item] += 0.5 ** (age / half_life)
        score = {item: (item in events) + own[item] + 1e-6 * counts[item] / (counts.max() + 1) for item in own}
        rivals = drawn[row].tolist() if "--sample_size" in flags else list(set(own) - {target})
        if "--filter_seen" in flags:
            rivals = [item for item in rivals if item not in events]
        ahead = [score[item] - score[target] for item in rivals]
        # Sums of halves in another order may differ in their last bit.
        assert sum(lead > 1e-14 for lead in ahead) <= ranks[user] <= sum(lead >= -1e-14 for lead in ahead)
    if not flags:
        assert_recommends_as_it_was_tested(folder, tiny_path)


@pytest.mark.parametrize("flags", [(), ("--half_life", "0.5")])
def test_a_run_is_ranked_and_recommends_as_any_other(flags: tuple[str, ...], tiny_path: Path, tmp_path: Path) -> None:
    run(tiny_path, tmp_path, "--baseline", "recency", *flags)
    assert_recommends_as_it_was_tested(tmp_path / "Baselines/tiny/recency", tiny_path)


def test_ranks_are_those_of_counts(tiny_path: Path, tmp_path: Path) -> None:
    run(tiny_path, tmp_path)
    split = leave_one_out(load_dataset(tiny_path))
    counts = split.train.item_counts(40)
    expected = [(counts[1:] >= counts[target]).sum() - 1 for target in split.test.targets]
    ranks = np.load(tmp_path / "Baselines/tiny/popularity/ranks-test.npy")
    assert ranks[split.test.users].tolist() == expected


def test_ranks_against_given_candidates_are_those_of_counts(tiny_path: Path, tmp_path: Path) -> None:
    dataset = load_dataset(tiny_path)
    drawn = sample_negatives(dataset, np.arange(dataset.num_users), 9, seed=0)
    users, items = dataset.user_table()["raw_id"], dataset.item_table()["raw_id"]
    file = tmp_path / "candidates.json"
    file.write_text(
        json.dumps({users[user]: [items[item - 1] for item in row] for user, row in enumerate(drawn.tolist())})
    )
    run(tiny_path, tmp_path, "--candidates", str(file))
    test = leave_one_out(dataset).test
    counts = leave_one_out(dataset).train.item_counts(40)
    expected = (counts[drawn[test.users]] >= counts[test.targets][:, None]).sum(axis=1)
    folder = tmp_path / "Baselines/tiny/popularity"
    assert np.load(folder / "ranks-test.npy")[test.users].tolist() == expected.tolist()
    protocol = json.loads((folder / "metrics.json").read_text())["protocol"]
    assert protocol["sample_size"] == 9 and len(protocol["candidates_sha256"]) == 64
    file.unlink()  # a trained model is used without it
    assert load_run(folder, tiny_path)[0].num_items == 40


def test_the_half_life_is_chosen_on_validation(tmp_path: Path) -> None:
    # Item 1 was everybody's first, item 2 most people's last before the held-out events, which are item 2 again.
    histories = [[1, 1, 3, 3, 3, 3, 3, 2, 2, 2] if user < 20 else [1, 1, 1, 1, 1, 1, 2, 2] for user in range(30)]
    data = write_dataset(tmp_path / "shop", histories, 3)
    said = run(data, tmp_path / "runs", "--baseline", "recency", "--best_metric", "MRR")
    assert "half-life: " in said
    assert f"half-life: {HALF_LIVES[0]:.4g}" not in said
    found = json.loads((tmp_path / "runs/Baselines/shop/recency/metrics.json").read_text())
    assert found["valid"]["MRR"] == 1
    run(data, tmp_path / "runs")
    folders = [tmp_path / "runs/Baselines/shop" / name for name in ("recency", "popularity")]
    recent, counted = (np.load(folder / "ranks-test.npy") for folder in folders)
    assert recent.sum() == 0 < counted.sum()


def test_contradictions() -> None:
    with pytest.raises(ValueError, match="--half_life is for --baseline recency and favourites"):
        Config(half_life=0.1)
    with pytest.raises(ValueError, match="--half_life must be above 0, got 0"):
        Config(baseline="recency", half_life=0)


@pytest.mark.parametrize("baseline", ["popularity", "recency", "favourites"])
def test_a_single_user_is_evaluated(baseline: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "lone", [[1, 2, 3, 4, 5, 6]], 6)
    run(data, tmp_path / "runs", "--baseline", baseline)
    metrics = json.loads((tmp_path / f"runs/Baselines/lone/{baseline}/metrics.json").read_text())
    assert metrics["test"]["users"] == 1
