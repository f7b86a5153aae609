"""Popularity, recency and favourites: counts from a pencil, and whole runs."""

import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch

from Baselines.counting import HALF_LIVES, all_events
from Baselines.data import event_ages, order_of_appearance, score_items
from Baselines.model import Favourites, MeanVector, Neighbours
from Baselines.options import Baseline, Config
from Baselines.rules import find_rules
from seqrec.basics.errors import UserError
from seqrec.data.comment_cases import split_cases
from seqrec.data.comments import Comments, load_comments
from seqrec.data.dataset import load_dataset
from seqrec.data.item_users import by_users
from seqrec.data.preparation import prepare
from seqrec.data.protocol import CANDIDATE_SEED, EvaluationProtocol
from seqrec.data.sources.comments_demo import CommentsDemo
from seqrec.data.splits import leave_one_out
from seqrec.data.vectors import load_embeddings
from seqrec.evaluation.candidates import sample_negatives
from seqrec.evaluation.ranking import rank_scores
from seqrec.items.similar import find_nearest
from seqrec.items.words import count_words, project, read_texts
from seqrec.training.batches import HeldOut
from seqrec.training.recommend import recommend
from seqrec.training.restore import load_run
from tests import forked
from tests.conftest import write_dataset
from tests.graphs import assert_graph_is_the_model
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


def test_what_nobody_published_appears_when_somebody_has_it(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "timed", [[1, 2, 3, 1, 4], [3, 1, 2, 4]], 4, [[5, 20, 30, 40, 50], [3, 9, 60, 70]])
    dataset = load_dataset(path)
    assert order_of_appearance(dataset, leave_one_out(dataset).train).tolist() == [0, 2, 3, 1, 0]  # 4 is a target only


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


@pytest.mark.parametrize("kind", ["favourites", "neighbours"])
@pytest.mark.parametrize("seed", range(3))
def test_counting_what_no_event_speaks_for_ranks_as_scoring_it(
    kind: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(seed)
    module = Favourites(30, (10,)) if kind == "favourites" else Neighbours(30, (10,), 4)
    module.take(draw.integers(0, 4, 31), half_life=2)
    if isinstance(module, Neighbours):
        nearest = torch.from_numpy(draw.integers(0, 31, (31, 4)))
        module.know(nearest, torch.from_numpy(draw.choice([0.0, 0.5, 0.7], (31, 4))))
    histories = as_histories([draw.integers(1, 31, draw.integers(1, 9)).tolist() for _ in range(20)])
    inputs = all_events(histories, np.arange(20))
    targets = torch.from_numpy(draw.integers(1, 31, 20))
    left_out = (None, (inputs.rows, inputs.items))
    batch = HeldOut(inputs, torch.arange(20), targets, None, left_out)
    monkeypatch.setattr("Baselines.model._PAYS", 0)
    scores = module.scores(inputs)
    for ranking, seen in zip(module.rank(batch, torch.zeros(0)), left_out, strict=True):
        expected = rank_scores(scores, targets, seen=seen)
        assert all(torch.equal(*both) for both in zip(astuple(ranking), astuple(expected), strict=True))


# Neighbours


def test_neighbours_are_the_nearest_by_users_and_by_words(tmp_path: Path) -> None:
    histories = [[1, 2, 2, 3], [1, 2], [3, 4, 5], [5, 1]]
    dataset = load_dataset(write_dataset(tmp_path / "shop", histories, 6))
    table = by_users(dataset.whole_histories(), 6)
    none: set[int] = set()
    sets = [none] + [{u for u, items in enumerate(histories) if item in items} for item in range(1, 7)]
    nearest, similarity = find_nearest(table, 3)
    for item in range(1, 7):
        cosine = [0.0] * 7
        for other in set(range(1, 7)) - {item}:
            size = len(sets[item]) * len(sets[other])
            cosine[other] = len(sets[item] & sets[other]) / size**0.5 if size else 0.0
        assert similarity[item].tolist() == pytest.approx(sorted(cosine, reverse=True)[:3])
        assert [cosine[i] for i in nearest[item].tolist()] == pytest.approx(similarity[item].tolist())
    assert find_nearest(table, 100)[0].shape == (7, 6)
    module = Neighbours(6, (10,), 3)
    module.know(nearest, similarity)
    module.take(np.zeros(7), half_life=1)
    scores = module.scores(all_events(as_histories([[1, 3, 3], [4]]), np.array([0, 1])))
    expected = np.zeros((2, 7))
    for row, item, weight in ((0, 1, 0.25), (0, 3, 0.5), (0, 3, 1.0), (1, 4, 1.0)):
        np.add.at(expected[row], nearest[item].numpy(), weight * similarity[item].numpy())
    assert scores.numpy() == pytest.approx(expected)


def test_words_are_counted_as_scikit_learn_says_and_characters_without_spaces_are_words() -> None:
    texts = ["a red kettle", "the red kettle", "", "红茶壶", "红茶"]
    (table,), words = count_words([texts])
    assert words == ["kettle", "red", "red kettle", "红", "红 茶", "茶"]
    dense = table.toarray()
    assert np.allclose(np.linalg.norm(dense, axis=1), [1, 1, 0, 1, 1])
    rarity = np.log(6 / 3) + 1  # of a word in two of five texts
    assert dense[0][:3] == pytest.approx(rarity / np.sqrt(3 * rarity**2))
    with pytest.raises(UserError, match="nothing to compare them by"):
        count_words([["a", "b"]])


def test_tfidf_vectors_keep_the_products_of_the_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [" ".join(rng.choice(["red", "blue", "tea", "cup", "pot", "lid"], 4)) for _ in range(30)]
    tables, _ = count_words([names[:20], names[20:]])
    first, second = project(tables, min(12, tables[0].shape[1] - 1))
    whole = np.concatenate([first, second])
    exact = np.concatenate([table.toarray() for table in tables])
    assert first.shape == (20, 12) and np.abs(whole @ whole.T - exact @ exact.T).max() < 0.35
    near = np.corrcoef((whole @ whole.T).ravel(), (exact @ exact.T).ravel())[0, 1]
    assert near > 0.95
    with pytest.raises(UserError, match="--width 99 must be less than"):
        project(tables, 99)


@pytest.mark.parametrize("baseline", ["item-knn", "text-knn"])
def test_neighbours_recommend_as_they_were_tested(baseline: str, tiny_path: Path, tmp_path: Path) -> None:
    run(tiny_path, tmp_path, "--baseline", baseline, "--neighbours", "20")
    assert_recommends_as_it_was_tested(tmp_path / "Baselines/tiny" / baseline, tiny_path)
    if baseline == "item-knn":  # items of one history follow one another
        run(tiny_path, tmp_path)
        folders = (tmp_path / "Baselines/tiny" / name for name in (baseline, "popularity"))
        found = [json.loads((folder / "metrics.json").read_text())["test"]["NDCG@10"] for folder in folders]
        assert found[0] > found[1]


# Times, and comments under videos


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Comments:
    """Made-up videos and comments."""
    folder = tmp_path_factory.mktemp("videos")
    config = CommentsDemo(name="tube", data_dir=folder, num_users=80, num_videos=100, visits=9, comments_per_video=7)
    return load_comments(load_dataset(prepare(config)))


@pytest.mark.parametrize("baseline", ["newest", "latest"])
def test_fresh_videos_are_ranked_by_their_times(baseline: str, videos: Comments, tmp_path: Path) -> None:
    dataset, published = videos.dataset, videos.item_published
    assert published is not None and dataset.timestamps is not None
    run(dataset.path, tmp_path, "--baseline", baseline, "--fresh_days", "7")
    ranks = np.load(tmp_path / "Baselines/tube" / baseline / "ranks-test.npy")
    test = leave_one_out(dataset).test
    events = list(zip(dataset.items.tolist(), dataset.timestamps.tolist(), strict=True))
    for row, user in enumerate(test.users):
        moment, target = int(dataset.moments(test)[row]), int(test.targets[row])
        start, end = dataset.offsets[user : user + 2]
        had = [i for i, t in events[start:end] if t <= moment]
        fresh = [i for i in range(1, len(published)) if 0 <= moment - published[i] <= 7 * 86_400]
        rivals = [i for i in fresh if i not in had]
        if target not in fresh or not rivals:
            assert ranks[user] == -1
            continue

        def score(item: int, moment: int = moment) -> int:
            if baseline == "newest":
                return int(published[item])
            return max((t for i, t in events if i == item and t < moment), default=-1)

        assert ranks[user] == sum(score(i) >= score(target) for i in rivals)


def test_what_was_had_last_is_recommended_first(videos: Comments, tmp_path: Path) -> None:
    run(videos.dataset.path, tmp_path, "--baseline", "latest")
    dataset, recommender = load_run(tmp_path / "Baselines/tube/latest", videos.dataset.path)
    assert dataset.timestamps is not None
    last = {int(i): int(t) for t, i in sorted(zip(dataset.timestamps.tolist(), dataset.items.tolist(), strict=True))}
    for rows, items, _ in recommend(recommender, dataset.whole_histories(), 5):
        for row, found in zip(rows, items, strict=True):
            own = set(dataset.items[dataset.offsets[row] : dataset.offsets[row + 1]].tolist())
            expected = sorted((t for i, t in last.items() if i not in own), reverse=True)[:5]
            assert [last[i] for i in found.tolist()] == expected


@pytest.mark.parametrize("rule", ["newest", "latest", "popularity", "text-knn"])
def test_comments_are_ranked_by_a_rule(rule: Baseline, videos: Comments, tmp_path: Path) -> None:
    run(videos.dataset.path, tmp_path, "--comments", "--baseline", rule, "--max_candidate_num", "5")
    folder = tmp_path / f"Baselines/tube/comments-{rule}"
    ranks, users = np.load(folder / "ranks-test.npy"), np.load(folder / "users-test.npy")
    cases = split_cases(videos, 5).test
    found = cases.candidates(np.arange(len(cases)))
    (words,), _ = count_words([read_texts(videos.own)])
    events = list(zip(videos.own.items.tolist(), videos.times.tolist(), strict=True))
    expected, owners, start = [], [], 0
    for case, user in enumerate(cases.users.tolist()):
        stretch = slice(start, start := start + int(found.lengths[case]))
        there, relevant = found.comments[stretch], found.relevant[stretch]
        moment = int(cases.entries.times[cases.rows[case]])
        first, end = videos.own.offsets[user : user + 2]
        known = [c for c, t in events[first:end] if t < moment]

        def score(comment: int, moment: int = moment, known: list[int] = known) -> float:
            taken = [t for c, t in events if c == comment and t < moment]
            if rule == "text-knn":
                return (
                    float(np.mean([words[c - 1].multiply(words[comment - 1]).sum() for c in known])) if known else 0.0
                )
            assert videos.published is not None
            if rule == "newest":
                return int(videos.published[comment])
            return max(taken, default=-1) if rule == "latest" else len(taken)

        scores = np.array([score(comment) for comment in there.tolist()])
        for place in np.flatnonzero(relevant):
            same = np.abs(scores - scores[place]) < 1e-7
            ahead = (scores > scores[place]) & ~same
            # An equal score counts against it, of another that was taken up if this one comes first.
            expected.append(int((ahead | same & ~relevant | same & relevant & (np.arange(len(there)) < place)).sum()))
            owners.append(user)
    assert users.tolist() == owners and ranks.tolist() == expected
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["protocol"]["ranked"] == "comments" and metrics["valid"]["users"] > 0
    with pytest.raises(UserError, match="ranks the comments under a video by a rule"):
        load_run(folder, videos.dataset.path)


def test_vectors_of_videos_and_comments_are_of_one_space(videos: Comments, tmp_path: Path) -> None:
    where = ("--data_path", videos.dataset.path, "--embedding_dir", tmp_path, "--width", "20")
    for _ in range(2):
        forked.run_script("Baselines/encode.py", *where, output=tmp_path / "said")
    assert "are there already" in (tmp_path / "said").read_text()
    vectors = [load_embeddings("tfidf", data, tmp_path) for data in (videos.dataset, videos.own)]
    tables, _ = count_words([read_texts(data) for data in (videos.dataset, videos.own)])
    for found, expected in zip(vectors, project(tables, 20), strict=True):
        assert not found[0].any() and np.allclose(found[1:], expected, atol=1e-5)


def test_what_a_dataset_does_not_say_is_refused(tiny_path: Path, tmp_path: Path) -> None:
    for flags, message in (
        (("--baseline", "newest"), "--baseline newest: .* has no timestamps, only order"),
        (("--fresh_days", "7"), "--fresh_days: .* does not say when its items appeared"),
        (("--baseline", "latest"), "has no timestamps, only order"),
        (("--comments",), "has no comments: prepare it with"),
    ):
        with pytest.raises(RuntimeError, match=message):
            run(tiny_path, tmp_path, *flags)


def test_a_half_life_is_chosen_by_some_users(tiny_path: Path, tmp_path: Path) -> None:
    found = []
    for most in ((), ("--valid_users", "5"), ("--valid_users", "100000")):
        run(tiny_path, tmp_path, "--baseline", "item-knn", *most, "--overwrite")
        found.append(json.loads((tmp_path / "Baselines/tiny/item-knn/metrics.json").read_text()))
    assert found[0]["valid"] == found[2]["valid"] != found[1]["valid"] and found[0]["test"] == found[2]["test"]
    assert found[1]["valid"]["Recall@10"] * 5 % 1 == pytest.approx(0)


def test_contradictions() -> None:
    with pytest.raises(ValueError, match="--comments are ranked by newest, latest"):
        Config(comments=True, baseline="item-knn")
    with pytest.raises(ValueError, match="--comments have --max_candidate_num"):
        Config(comments=True, protocol=EvaluationProtocol(filter_seen=True))
    with pytest.raises(ValueError, match="--fresh_days must be above 0"):
        EvaluationProtocol(fresh_days=0)
    with pytest.raises(ValueError, match="--fresh_days says what is ranked"):
        EvaluationProtocol(fresh_days=1, sample_size=9)
    with pytest.raises(ValueError, match="--half_life is for items and for --baseline recency, favourites"):
        Config(half_life=0.1)
    with pytest.raises(ValueError, match="--half_life must be above 0, got 0"):
        Config(baseline="recency", half_life=0)


@pytest.mark.parametrize("baseline", ["popularity", "recency", "favourites"])
def test_a_single_user_is_evaluated(baseline: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "lone", [[1, 2, 3, 4, 5, 6]], 6)
    run(data, tmp_path / "runs", "--baseline", baseline)
    metrics = json.loads((tmp_path / f"runs/Baselines/lone/{baseline}/metrics.json").read_text())
    assert metrics["test"]["users"] == 1


def test_rules_by_hand() -> None:
    histories = as_histories([[1, 2, 3, 1], [2, 3], [3, 3, 2], [1, 2]])
    follows, share = find_rules(histories, 4, 2)
    # After 1: 2 (1 + 1), 3 (1/2); itself is left out. Item 1 occurs three times.
    assert follows[1].tolist() == [2, 3]
    torch.testing.assert_close(share[1], torch.tensor([2 / 3, 0.5 / 3]))
    torch.testing.assert_close(share[2], torch.tensor([2 / 4, 0.5 / 4]))  # 3 (1 + 1), 1 (1/2)
    assert follows[2].tolist() == [3, 1]
    torch.testing.assert_close(share[3], torch.tensor([1.5 / 4, 1 / 4]))  # 2 (1 + 1/2), 1 (1)
    assert follows[3].tolist() == [2, 1] and not share[4].any() and not share[0].any()


@pytest.mark.parametrize("baseline", ["rules", "vectors"])
def test_what_is_near_is_ranked_as_by_hand(baseline: str, tiny_path: Path, tmp_path: Path) -> None:
    dataset = load_dataset(tiny_path)
    vectors = np.random.default_rng(0).standard_normal((41, 8)).astype(np.float32)
    vectors[0] = 0
    np.save(tmp_path / "mine.npy", vectors)
    flags = ("--init_type", str(tmp_path / "mine.npy")) if baseline == "vectors" else ("--neighbours", "40")
    run(tiny_path, tmp_path, "--baseline", baseline, *flags)
    folder = tmp_path / "Baselines/tiny" / (baseline if baseline == "rules" else "vectors-mine")
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    split, half_life = leave_one_out(dataset), state["half_life"].item()
    assert half_life < np.inf
    follows, share = find_rules(split.train, 40, 40)
    near = torch.zeros(41, 41).scatter_add_(1, follows, share).numpy()
    counts = split.train.item_counts(40)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    ranks = np.load(folder / "ranks-test.npy")
    for row, user in enumerate(split.test.users):
        events = split.test.gather(np.array([row]), 99)[0]
        weights = 0.5 ** (np.arange(len(events))[::-1] / half_life)
        if baseline == "rules":
            scores = weights @ near[events] + 1e-6 * counts / (counts.max() + 1)
        else:
            scores = (weights @ unit[events]) @ unit.T
        lead = np.delete(scores, [0, split.test.targets[row]]) - scores[split.test.targets[row]]
        assert (lead > 1e-5).sum() <= ranks[user] <= (lead >= -1e-5).sum()
    assert_recommends_as_it_was_tested(folder, tiny_path)


def test_a_mean_of_vectors_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = MeanVector(40, (10,), 8)
    module.know(np.random.default_rng(0).standard_normal((41, 8)).astype(np.float32))
    module.take(0.1)
    module.make_inputs = all_events  # type: ignore[assignment]
    monkeypatch.setattr(MeanVector, "most_events", 7)  # what is older counts less than 2 ** -70
    assert_graph_is_the_model(module, tmp_path)
    module.take(3)
    histories = as_histories([[5, 9, 1, 5], [7]])
    read = module.read_rectangle(module.vectors[torch.tensor([[5, 9, 1, 5], [7, 0, 0, 0]])], torch.tensor([4, 1]))
    torch.testing.assert_close(read, module.user_vectors(all_events(histories, np.arange(2))))


def test_vectors_are_for_their_baseline() -> None:
    for options in ({"baseline": "vectors"}, {"init_type": "tfidf"}):
        with pytest.raises(UserError, match="--init_type NAME is for --baseline vectors"):
            Config(**options)  # type: ignore[arg-type]
