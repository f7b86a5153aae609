"""Whole runs of LSVCR: killed, ranked as one by one, recommended from; and what is refused."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from LSVCR.cases import CommentDataset, VideoCases
from LSVCR.data import Moments, read_texts
from LSVCR.model import SRModel
from LSVCR.module import CommentModule, VideoModule
from LSVCR.options import Config, ModelOptions, Task
from LSVCR.training import open_module
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data.batches import BatchKey
from seqrec.data.comments import Comments, load_comments
from seqrec.data.dataset import load_dataset
from seqrec.data.splits import leave_one_out
from seqrec.data.vectors import Producer, embedding_path, save_embeddings
from seqrec.training.recommend import recommend
from seqrec.training.restore import load_run
from tests import forked
from tests.interrupted import Command, assert_same_run, kill_at_random_moments
from tests.LSVCR.made_up import WIDTH, config_of, known_before, make_comments, opened
from tests.recommending import assert_recommends_as_it_was_tested

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.fixture(scope="module")
def comments(tmp_path_factory: pytest.TempPathFactory) -> Comments:
    return make_comments(tmp_path_factory.mktemp("lsvcr"))


def command_of(comments: Comments, runs: Path, task: Task, *flags: str) -> Command:
    small = (
        "--hidden_units",
        "8",
        "--inner_size",
        "12",
        "--maxlen",
        "5",
        "--batch_size",
        "64",
        "--lr",
        "0.01",
        "--llm_emb_size",
        "6",
    )
    folder = str(comments.dataset.path.parent / "embedding")
    flags = ("--task", task, "--text", "drawn", "--embedding_dir", folder, *small, "--num_epochs", "6", *flags)
    return Command("LSVCR", comments.dataset.path, runs, flags, f"{task.lower()}-drawn")


@pytest.mark.parametrize("task", ["Rec", "CommRank"])
def test_a_run_that_is_killed_goes_on_as_if_it_was_not(task: Task, comments: Comments, tmp_path: Path) -> None:
    straight, killed = (command_of(comments, tmp_path / name, task) for name in ("straight", "killed"))
    straight.run()
    assert kill_at_random_moments(killed, np.random.default_rng(0)) >= 1
    assert_same_run(straight.folder, killed.folder)
    if task == "Rec":
        assert_recommends_as_it_was_tested(straight.folder, comments.dataset.path)


@pytest.mark.parametrize("task", ["Rec", "CommRank"])
def test_the_gradients_of_two_halves_are_those_of_the_whole(task: Task, comments: Comments) -> None:
    module, cases = opened(comments, config_of(comments, task, id_text_loss_weight=0))
    data: Any = CommentDataset(module.streams, cases.train, 3, seed=0)
    if task == "Rec":
        data = VideoCases(module.streams, leave_one_out(comments.dataset).train, 0)

    rows = np.random.default_rng(0).permutation(len(data.moments.users))[:64]
    gradients = []
    for size in (64, 32):
        moved, batches = copy.deepcopy(module), [data[BatchKey(part, 0, 0)] for part in np.split(rows, 64 // size)]
        optimizer = torch.optim.SGD(moved.parameters(), lr=1.0)
        moved.configure_optimizers = lambda optimizer=optimizer: optimizer  # type: ignore[misc, method-assign]
        trainer = lightning.Trainer(max_epochs=1, accumulate_grad_batches=64 // size, **QUIET)
        given: Any = batches
        trainer.fit(moved, DataLoader(given, batch_size=None))
        old = module.state_dict()
        gradients.append({k: v - old[k] for k, v in moved.state_dict().items() if v.is_floating_point()})
    for key, change in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], change, atol=1e-5, rtol=1e-4)
    assert sum(float(change.abs().sum()) > 0 for change in gradients[0].values()) > 20


def test_fresh_videos_are_ranked_as_one_by_one(
    comments: Comments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = command_of(comments, tmp_path, "Rec", "--fresh_days", "7", "--timing", "heat")
    command.run()
    dataset, recommender = load_run(command.folder, comments.dataset.path)
    module, published = recommender.module, comments.item_published
    assert isinstance(module, VideoModule) and module.timing is not None and module.streams.clock is not None
    assert published is not None and dataset.timestamps is not None
    ranks, test = np.load(command.folder / "ranks-test.npy"), leave_one_out(dataset).test
    week, kept = 7 * 86_400, []
    for row, user in enumerate(test.users):
        time, target = int(dataset.moments(test)[row]), int(test.targets[row])
        had = known_before(comments, int(user), time + 1)[0]
        others = [i for i in range(1, len(published)) if 0 <= time - published[i] <= week and i not in had]
        if not others or not 0 <= time - published[target] <= week:
            assert ranks[user] == -1
            continue
        items = np.array([target, *others])
        with torch.no_grad():
            taste = module.item_vectors()[items] @ module.user_vectors(module.make_inputs(test, np.array([row])))[0]
            scores = taste + module.timing(module.streams.clock.read(items, np.full(len(items), time))) / 0.07
        lead = (scores[1:] - scores[0]).numpy()
        assert (lead > 1e-4).sum() <= ranks[user] <= (lead > -1e-4).sum()
        kept.append(user)
    assert command.metrics()["test"]["users"] == len(kept) > 20
    assert command.metrics()["protocol"]["fresh_days"] == 7
    whole = dataset.whole_histories()
    rows, items, scores = next(recommend(recommender, whole, 1000, max_tokens=10**6))
    last = int(dataset.timestamps.max()) + 1
    for row, found, given in zip(rows, items, scores, strict=True):
        seen = known_before(comments, int(row), last + 1)[0]
        fresh = {i for i in range(1, len(published)) if 0 <= last - published[i] <= week and i not in seen}
        assert set(found[given > -np.inf].tolist()) == fresh and not found[given == -np.inf].any()
    monkeypatch.setattr("LSVCR.module.PAIRS", 3 * len(published))  # a few users at a time
    _, again, given = next(recommend(recommender, whole, 1000, max_tokens=10**6))
    assert (again == items).all()
    np.testing.assert_allclose(given, scores, rtol=1e-5)


def test_comments_are_ranked_as_one_by_one(comments: Comments, tmp_path: Path) -> None:
    command = command_of(comments, tmp_path, "CommRank", "--max_candidate_num", "4")
    command.run()
    config = config_of(comments, "CommRank", max_candidate_num=4)
    module, cases = open_module(config, comments, read_texts(comments, config))
    module.load_state_dict(torch.load(command.folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"])
    module.eval()
    assert isinstance(module, CommentModule)
    data, found = CommentDataset(module.streams, cases.test, None, seed=0), []
    for row in range(len(data.cases)):
        batch = data[BatchKey(np.array([row]), 0, 0)]
        with torch.no_grad():
            scores, _ = module.scores(batch)
        assert len(scores) <= 4
        for place in batch.relevant.nonzero()[:, 0]:
            above = (scores > scores[place]) | ((scores == scores[place]) & ~batch.relevant)
            found.append(int(above.sum()))
    assert np.load(command.folder / "ranks-test.npy").tolist() == found
    assert np.load(command.folder / "users-test.npy").tolist() == data.users.tolist()
    metrics = command.metrics()
    assert metrics["protocol"]["relevant"] == "all" and metrics["test"]["users"] == len(data.cases)


def test_a_run_is_used_with_the_texts_that_it_read(comments: Comments, tmp_path: Path) -> None:
    folder = tmp_path / "embedding"

    def write(seed: int) -> None:
        for data in (comments.dataset, comments.own):
            vectors = np.random.default_rng(seed).normal(size=(data.num_items + 1, WIDTH)).astype(np.float32)
            vectors[0] = 0
            save_embeddings(embedding_path(data, "drawn", folder), vectors, data, Producer("test", None, {}))

    write(0)
    command = command_of(comments, tmp_path, "Rec", "--num_epochs", "1", "--embedding_dir", str(folder))
    command.run()
    assert len(command.metrics()["vectors_sha256"]) == 64
    load_run(command.folder, comments.dataset.path)
    write(1)
    with pytest.raises(UserError, match="'drawn' are not those that the run read"):
        load_run(command.folder, comments.dataset.path)


def test_histories_begin_as_what_targets_are(comments: Comments) -> None:
    config = config_of(comments, disable_id=True)
    module, _ = open_module(config, comments, read_texts(comments, config))
    model, inputs = module.model, module.streams.read(Moments(np.arange(9), np.full(9, np.iinfo(np.int64).max)))
    assert inputs.texts is not None
    merged = model.merged_texts(inputs)
    assert merged is not None
    hot = F.pad(model.text(inputs.texts[1:]), (0, 0, 1, 0))[inputs.hot]
    torch.testing.assert_close(merged[0], model.item_vectors(inputs.videos) + hot)
    wide = SRModel(5, ModelOptions(hidden_units=64), ("Rec",), text_width=2048, with_ids=False)
    spread = wide.text(torch.randn(100, 2048)).std()
    assert 0.2 < float(spread.detach()) < 2  # of numbers of deviation 1, through three layers


def test_comments_under_a_video_are_recommended(comments: Comments, tmp_path: Path) -> None:
    command = command_of(comments, tmp_path, "CommRank", "--timing", "heat", "--num_epochs", "2")
    command.run()
    dataset, recommender = load_run(command.folder, comments.dataset.path)
    module = recommender.module
    assert isinstance(module, CommentModule) and module.timing is not None and module.streams.clock is not None
    raw = dataset.item_table()["raw_id"].to_list()
    with pytest.raises(UserError, match="say which, by --under"):
        next(recommend(recommender, dataset.whole_histories()))
    with pytest.raises(UserError, match="has no item 'V99999': --under takes"):
        module.look_under("V99999")
    own = module.look_under(raw[4])
    under = np.flatnonzero(comments.under == 5)
    for rows, items, scores in recommend(recommender, own.whole_histories(), 4, max_tokens=40):
        with torch.no_grad():
            inputs = recommender.make_inputs(own.whole_histories(), rows)
            users = F.normalize(module.model(inputs, "CommRank")[0], dim=1)
            vectors = torch.from_numpy(np.array(module.streams.vectors)[under])
            cosines = users @ F.normalize(module.model.text(vectors), dim=1).T
            times = module.streams.clock.read(under, np.full(len(under), np.iinfo(np.int64).max))
            expected = ((cosines + module.timing(times)) / 0.07).numpy()
        for place, row in enumerate(rows):
            taken = own.items[own.offsets[row] : own.offsets[row + 1]]
            order = [c for c in np.argsort(-expected[place]) if under[c] not in taken][:4]
            there = items[place][items[place] > 0]
            assert there.tolist() == under[order].tolist()
            assert scores[place][: len(there)] == pytest.approx(expected[place][order], rel=1e-4)
    said = tmp_path / "said"
    user = dataset.user_table()["raw_id"][3]
    flags = ("--users", user, "--under", raw[4], "--data_path", comments.dataset.path)
    forked.run_script("scripts/recommend.py", command.folder, *flags, output=said)
    assert user in said.read_text() and any(text in said.read_text() for text in own.item_table()["text"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "none", "disable_id": True}, "--disable_id leaves texts alone"),
        ({"task": "CommRank", "protocol": replace(Config().protocol, filter_seen=True)}, "are for --task Rec"),
        (
            {"task": "CommRank", "training": replace(Config().training, valid_users=9)},
            "--valid_users are for --task Rec",
        ),
        ({"protocol": replace(Config().protocol, split="users")}, "held out by --split leave_one_out alone"),
        ({"protocol": replace(Config().protocol, item_start_position=-9)}, "drop --last_k_eval_test"),
        ({"protocol": replace(Config().protocol, last_k_eval_test=4)}, "drop --last_k_eval_test"),
        ({"max_candidate_num": 1}, "max_candidate_num"),
        ({"timing": "age"}, "is that of what is fresh: give --fresh_days"),
        ({"neg_video_num": 9}, "--neg_video_num is for --task Rec with --timing"),
        ({"neg_video_num": 0}, "--neg_video_num must be at least 1"),
    ],
)
def test_contradictions(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Config(**options)


def test_a_dataset_without_comments_or_times_is_refused(tiny_path: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    with pytest.raises(RuntimeError, match="has no comments: prepare it with"):
        forked.run_script("LSVCR/finetune.py", "--data_path", tiny_path, "--runs_dir", tmp_path, output=said)
    with pytest.raises(MissingFileError, match="has no comments"):
        load_comments(load_dataset(tiny_path))
