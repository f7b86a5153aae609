"""LSVCR: histories by the rule, the model by its equations, the losses by hand, whole runs."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from LSVCR.cases import CommentDataset, VideoCases
from LSVCR.data import DrawnBy, Moments, Streams, open_streams, read_texts
from LSVCR.model import Inputs, SRModel, id_text_contrast
from LSVCR.module import CommentModule, VideoModule
from LSVCR.options import Config, ModelOptions, Task, Timing
from LSVCR.training import open_module
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data.batches import BatchKey
from seqrec.data.comment_cases import CaseSplit
from seqrec.data.comments import Comments, load_comments
from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import prepare
from seqrec.data.protocol import EvaluationProtocol
from seqrec.data.sources.comments_demo import CommentsDemo
from seqrec.data.splits import leave_one_out
from seqrec.data.vectors import Producer, embedding_path, save_embeddings
from seqrec.training.recommend import recommend
from seqrec.training.restore import load_run
from tests import forked
from tests.interrupted import Command, assert_same_run, kill_at_random_moments
from tests.recommending import assert_recommends_as_it_was_tested
from tests.test_comments import read, write_tables

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
SMALL = ModelOptions(hidden_units=8, inner_size=12, maxlen=5, llm_emb_size=6)
WIDTH = 10


@pytest.fixture(scope="module")
def comments(tmp_path_factory: pytest.TempPathFactory) -> Comments:
    """Made-up videos and comments, with text vectors."""
    folder = tmp_path_factory.mktemp("lsvcr")
    config = CommentsDemo(name="tube", data_dir=folder, num_users=60, num_videos=100, visits=9, comments_per_video=7)
    found = load_comments(load_dataset(prepare(config)))
    for data in (found.dataset, found.own):
        vectors = np.random.default_rng(data.num_items).normal(size=(data.num_items + 1, WIDTH)).astype(np.float32)
        vectors[0] = 0
        save_embeddings(embedding_path(data, "drawn", folder / "embedding"), vectors, data, Producer("test", None, {}))
    return found


def config_of(comments: Comments, task: Task = "Rec", **options: Any) -> Config:
    folder = comments.dataset.path.parent / "embedding"
    return Config(**{"task": task, "text": "drawn", "embedding_dir": folder, "model": SMALL, **options})


def opened(comments: Comments, config: Config) -> tuple[VideoModule | CommentModule, CaseSplit]:
    """Return a module in which nothing is 0 or 1 by chance."""
    torch.manual_seed(0)
    module, cases = open_module(config, comments, read_texts(comments, config))
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, std=0.4)
        if name == "model.ids.weight":
            parameter.data[0] = 0
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return module.eval(), cases


# Histories


def known_before(comments: Comments, user: int, time: int) -> tuple[list[int], list[tuple[int, list[int]]]]:
    """Return the videos of a user before a moment, and the entries, event by event from the rule."""
    dataset, own = comments.dataset, comments.own
    videos = []
    if user < dataset.num_users:
        assert dataset.timestamps is not None
        stretch = slice(int(dataset.offsets[user]), int(dataset.offsets[user + 1]))
        videos = [v for v, t in zip(dataset.items[stretch], dataset.timestamps[stretch], strict=True) if t < time]
    entries: list[tuple[int, list[int], int]] = []
    stretch = slice(int(own.offsets[user]), int(own.offsets[user + 1]))
    for comment, t in zip(own.items[stretch].tolist(), comments.times[stretch].tolist(), strict=True):
        item = int(comments.under[comment])
        if entries and entries[-1][0] == item and t - entries[-1][2] <= 86_400:
            entries[-1] = (item, [*entries[-1][1], comment], t)
        else:
            entries.append((item, [comment], t))
    return [int(v) for v in videos], [(item, taken) for item, taken, last in entries if last < time]


def told(inputs: Inputs, number: int) -> tuple[list[int], list[tuple[int, list[int]]]]:
    """Return what the inputs hold of one case, where the text vectors are the comments' numbers."""
    assert inputs.texts is not None
    comment = inputs.texts[:, 0].long()
    place = int(inputs.order[number])
    videos, entries = (slice(*layout.offsets[place : place + 2].tolist()) for layout in inputs.layouts)
    found = []
    for row in range(entries.start, entries.stop):
        found.append((int(inputs.entries[row]), comment[inputs.taken[inputs.owner == row]].tolist()))
    return inputs.videos[videos].tolist(), found


def test_histories_end_strictly_before_the_moment(comments: Comments) -> None:
    numbers = np.arange(comments.own.num_items + 1, dtype=np.float32)[:, None]
    streams, _ = open_streams(comments, config_of(comments), numbers)
    assert comments.dataset.timestamps is not None
    times = np.concatenate([comments.dataset.timestamps, comments.times, [0, np.iinfo(np.int64).max]])
    rng = np.random.default_rng(0)
    moments = Moments(rng.integers(0, comments.own.num_users, 200), rng.choice(times, 200))
    inputs = streams.read(moments)
    for number, (user, time) in enumerate(zip(moments.users.tolist(), moments.times.tolist(), strict=True)):
        videos, entries = known_before(comments, user, time)
        assert told(inputs, number) == (videos[-5:] or [0], entries[-5:] or [(0, [])])
    assert streams.count_rows(moments).sum() == len(inputs.videos) + len(inputs.entries)


def test_a_user_of_comments_alone_has_no_videos(tmp_path: Path) -> None:
    found = read(write_tables(tmp_path))
    streams, _ = open_streams(found, config_of(found), np.zeros((found.own.num_items + 1, 3), np.float32))
    inputs = streams.read(Moments(np.array([2, 0]), np.array([10**6, 43])))
    assert told(inputs, 0)[0] == [0] and told(inputs, 1)[0] == [1]  # user 2 watched item 1 at 40 and item 2 at 43


def test_a_popular_comment_stands_for_a_video(comments: Comments) -> None:
    numbers = np.arange(comments.own.num_items + 1, dtype=np.float32)[:, None]
    streams, cases = open_streams(comments, config_of(comments), numbers)
    counts = np.zeros(comments.own.num_items + 1, dtype=int)
    bounds = cases.train.entries.bounds
    for entry in cases.train.rows:
        for event in range(bounds[entry], bounds[entry + 1]):
            counts[comments.own.items[event]] += 1
    for item in range(1, comments.dataset.num_items + 1):
        under = [c for c in range(1, len(counts)) if comments.under[c] == item]
        assert streams.hot[item].tolist() == sorted(under, key=lambda c: (-counts[c], c))[:3]
    assert not streams.hot[0].any()
    moments = Moments(np.arange(40), np.full(40, np.iinfo(np.int64).max))
    first = streams.read(moments)
    assert first.texts is not None
    assert first.texts[first.hot, 0].tolist() == streams.hot[first.videos.numpy(), 0].tolist()
    seen = set()
    for epoch in range(4):
        drawn = streams.read(moments, DrawnBy(3, epoch, np.arange(40)))
        assert drawn.texts is not None
        hot = drawn.texts[drawn.hot, 0].numpy()
        assert (streams.hot[drawn.videos.numpy()] == hot[:, None]).any(axis=1).all()
        seen |= set((streams.hot[drawn.videos.numpy()] == hot[:, None]).argmax(axis=1).tolist())
        alone = streams.read(Moments(moments.users[7:8], moments.times[7:8]), DrawnBy(3, epoch, np.array([7])))
        assert alone.texts is not None
        stretch = slice(*drawn.layouts[0].offsets[int(drawn.order[7]) : int(drawn.order[7]) + 2].tolist())
        assert alone.texts[alone.hot, 0].tolist() == hot[stretch].tolist()  # whatever batch it is in
    assert seen == {0, 1, 2}


# The model


def attention(block: Any, asked: Tensor, seen: Tensor, causal: bool) -> Tensor:
    """Return multi-head attention of one history, by the equation."""
    q = block.query(asked)
    k, v = block.key_value(seen).chunk(2, dim=1)
    out = []
    for a, b, c in zip(*(x.chunk(block.num_heads, dim=1) for x in (q, k, v)), strict=True):
        scores = a @ b.T / math.sqrt(a.shape[1])
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        out.append(scores.softmax(dim=1) @ c)
    mixed: Tensor = block.attention_out(torch.cat(out, dim=1))
    return mixed


def post_norm(block: Any, asked: Tensor, seen: Tensor, causal: bool) -> Tensor:
    x = block.attention_norm(asked + attention(block, asked, seen, causal))
    out: Tensor = block.feed_forward_norm(x + block.feed_forward(x))
    return out


def by_the_equations(
    model: SRModel, streams: Streams, user: int, time: int, watched: int | None, of: Task | None = None
) -> Tensor:
    """Return a user's vector, (D,), history by history; it is `of` the history that this task reads, or of its own."""
    task: Task = "Rec" if watched is None else "CommRank"
    of = of or task
    videos, entries = known_before(streams.comments, user, time)
    videos, entries = videos[-5:], entries[-5:]

    def text(vector: Tensor) -> Tensor:
        adapted: Tensor = model.adapter(model.text_mlp(vector))
        return adapted

    def row(item: int, taken: list[int]) -> Tensor:
        x = torch.zeros(8, dtype=torch.float64)
        if model.ids is not None and model.gate is not None:
            x = x + model.gate * model.ids.weight[item]
        if model.titles is None:
            return x
        assert streams.vectors is not None
        said = [text(torch.from_numpy(streams.vectors[c]).double()) for c in taken]
        mean = torch.stack(said).mean(0) if said else torch.zeros(8, dtype=torch.float64)
        merged: Tensor = model.merge(torch.cat([text(model.titles[item]), mean]))
        return x + merged

    states = []
    rows = [[row(v, [int(streams.hot[v, 0])]) for v in videos], [row(item, taken) for item, taken in entries]]
    for own, history in zip(rows, (model.video_history, model.comment_history), strict=True):
        x = torch.stack(own or [history.empty])
        x = history.norm(x + history.places.weight[: len(x)])
        for block in history.blocks:
            x = post_norm(block, x, x, causal=True)
        states.append(x)
    asking, other = states if of == "Rec" else states[::-1]
    mixing: Any = model.mixing[of]
    x = asking
    for block in mixing.blocks:
        x = post_norm(block, x, other, causal=False)
    x = mixing.out(torch.cat([asking, x], dim=1))
    readout: Any = model.readout[task]
    if watched is None:
        weights = readout.score(x)[:, 0].softmax(dim=0)
        mean: Tensor = weights @ x
        return mean
    v = model.item_vectors(torch.tensor([watched]))
    found: Tensor = readout.norm(v + attention(readout, v, x, causal=False))[0]
    return found


@pytest.mark.parametrize("options", [{}, {"disable_id": True}, {"text": "none"}], ids=["both", "texts", "ids"])
@pytest.mark.parametrize("task", ["Rec", "CommRank"])
def test_the_model_is_its_equations(task: Task, options: dict[str, Any], comments: Comments) -> None:
    if task == "CommRank" and "text" in options:
        with pytest.raises(UserError, match="tells comments by their texts"):
            opened(comments, config_of(comments, task, **options))
        return
    module, _ = opened(comments, config_of(comments, task, **options))
    module.double()
    streams, rng = module.streams, np.random.default_rng(1)
    assert comments.dataset.timestamps is not None
    times = np.append(rng.choice(comments.dataset.timestamps, 28), [0, np.iinfo(np.int64).max])  # one empty, one whole
    moments = Moments(rng.integers(0, 60, 30), times)
    watched = rng.integers(1, comments.dataset.num_items + 1, 30) if task == "CommRank" else None
    inputs = streams.read(moments, watched=watched)
    inputs = inputs._replace(texts=None if inputs.texts is None else inputs.texts.double())
    found, _ = module.model(inputs, task)
    for number in range(30):
        at = None if watched is None else int(watched[number])
        expected = by_the_equations(module.model, streams, int(moments.users[number]), int(times[number]), at)
        torch.testing.assert_close(found[number], expected)


def test_a_model_of_both_tasks_reads_both_histories_of_each_user(comments: Comments) -> None:
    module, _ = opened(comments, config_of(comments, disable_id=True))
    titles = module.model.titles
    model = (
        SRModel(comments.dataset.num_items, SMALL, ("Rec", "CommRank"), text_width=WIDTH, with_ids=False)
        .double()
        .eval()
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    assert titles is not None and comments.dataset.timestamps is not None
    streams, rng = module.streams, np.random.default_rng(1)
    moments = Moments(rng.integers(0, 60, 20), np.append(rng.choice(comments.dataset.timestamps, 19), 0))
    watched = np.where(np.arange(20) % 2 == 0, 0, rng.integers(1, comments.dataset.num_items + 1, 20))
    inputs = streams.read(moments, watched=watched)
    known = torch.cat([inputs.videos, inputs.entries, torch.from_numpy(watched)]).unique()
    assert inputs.texts is not None
    inputs = inputs._replace(texts=inputs.texts.double(), titles=(known, titles[known].double()))
    first, second = model.both(inputs, torch.from_numpy(watched > 0))
    model.register_buffer("titles", titles.double(), persistent=False)
    for number, (user, time) in enumerate(zip(moments.users.tolist(), moments.times.tolist(), strict=True)):
        at = int(watched[number]) or None
        tasks: list[Task] = ["Rec", "CommRank"]
        own, other = tasks if at is None else tasks[::-1]
        torch.testing.assert_close(first[number], by_the_equations(model, streams, user, time, at, own))
        torch.testing.assert_close(second[number], by_the_equations(model, streams, user, time, at, other))


# Losses


def test_ids_and_texts_are_told_apart_as_by_a_loop() -> None:
    torch.manual_seed(0)
    own, text = (F.normalize(torch.randn(9, 4, dtype=torch.float64), dim=1) for _ in range(2))
    rows, drawn = torch.tensor([1, 2, 3, 1, 4, 5, 2, 6, 7]), torch.tensor([0, 4, 6])
    total = 0.0
    for n in range(9):
        for a, b in ((own, text), (text, own)):
            scores = [float(a[n] @ b[n])] + [float(a[n] @ b[m]) for m in drawn.tolist() if rows[m] != rows[n]]
            total -= math.log(math.exp(scores[0] / 0.07) / sum(math.exp(s / 0.07) for s in scores)) / 2 / 9
    assert float(id_text_contrast(own, text, rows, drawn, 0.07)) == pytest.approx(total)


def test_the_loss_of_videos(comments: Comments) -> None:
    module, _ = opened(comments, config_of(comments, id_text_loss_weight=0.0))
    train = leave_one_out(comments.dataset).train
    cases = VideoCases(module.streams, train, seed=1)
    assert len(cases.at) == int((train.lengths - 1).sum())
    batch = cases[BatchKey(np.array([0, 5, 77]), 0, 0)]
    assert batch.targets.tolist() == comments.dataset.items[cases.at[[0, 5, 77]]].tolist()
    users, _ = module.model(batch.inputs, "Rec")
    classes = F.normalize(module.model.item_vectors(), dim=1)
    logits = F.normalize(users, dim=1) @ classes.T / 0.07
    logits[:, 0] = -torch.inf
    torch.testing.assert_close(module.training_step(batch), F.cross_entropy(logits, batch.targets))  # type: ignore[arg-type]
    weighted, _ = opened(comments, config_of(comments, id_text_loss_weight=0.5))
    torch.manual_seed(3)
    loss = weighted.training_step(batch)  # type: ignore[arg-type]
    torch.manual_seed(3)
    _, texts = weighted.model(batch.inputs, "Rec")
    assert texts is not None
    alike = weighted.model.id_text_loss((batch.inputs.videos, batch.inputs.entries), texts, 99, 0.07)
    torch.testing.assert_close(loss, module.training_step(batch) + 0.5 * alike)  # type: ignore[arg-type]


def test_the_loss_of_comments_and_its_draws(comments: Comments) -> None:
    config = config_of(comments, "CommRank", id_text_loss_weight=0.0)
    module, cases = opened(comments, config)
    data = CommentDataset(module.streams, cases.train, 2, seed=1)
    rows = np.arange(25)
    batch = data[BatchKey(rows, 0, 0)]
    ends = batch.lengths.cumsum(0).tolist()
    vectors = torch.from_numpy(np.asarray(module.streams.vectors))
    users, _ = module.model(batch.inputs, "CommRank")
    losses = []
    for number, end in enumerate(ends):
        stretch = slice(end - int(batch.lengths[number]), end)
        flags = batch.relevant[stretch]
        there, _, relevant = cases.train.candidates(rows[number : number + 1])
        assert int(flags.sum()) == 1 and len(flags) == 1 + min(2, int((~relevant).sum()))
        given = batch.vectors[batch.candidates[stretch]]
        names = [int((vectors == vector).all(dim=1).nonzero()[0]) for vector in given]
        assert set(names) <= set(there.tolist())
        assert [bool(relevant[there.tolist().index(name)]) for name in names] == flags.tolist()
        scores = F.normalize(module.model.text(given), dim=1) @ F.normalize(users[number], dim=0) / 0.07
        losses.append(-scores.log_softmax(0)[flags][0])
    torch.testing.assert_close(module.training_step(batch), torch.stack(losses).mean())  # type: ignore[arg-type]
    alone = data[BatchKey(rows[4:5], 0, 0)]
    stretch = slice(ends[3], ends[4])
    assert torch.equal(alone.vectors[alone.candidates], batch.vectors[batch.candidates[stretch]])
    other = data[BatchKey(rows, 1, 0)]
    assert other.candidates.tolist() != batch.candidates.tolist() or not torch.equal(other.vectors, batch.vectors)


# Times


@pytest.mark.parametrize("timing", ["age", "heat"])
def test_the_clock_tells_what_was_known_at_the_moment(timing: Timing, comments: Comments) -> None:
    stamps = comments.dataset.timestamps
    assert comments.published is not None and comments.item_published is not None and stamps is not None
    tasks: list[Task] = ["Rec", "CommRank"]
    for task in tasks:
        streams, _ = open_streams(comments, config_of(comments, task, timing=timing, protocol=protocol_of(task)), None)
        things, times, published = comments.dataset.items, stamps, comments.item_published
        if task == "CommRank":
            things, times, published = comments.own.items, comments.times, comments.published
        rng = np.random.default_rng(0)
        asked = rng.integers(1, len(published), 60)
        moments = np.concatenate([rng.choice(times, 30), published[asked[30:]] + rng.integers(0, 200_000, 30)])
        assert streams.clock is not None
        found = streams.clock.read(asked, moments)
        for thing, moment, row in zip(asked.tolist(), moments.tolist(), found, strict=True):
            before = [int(t) for i, t in zip(things, times, strict=True) if i == thing and t < moment]
            age = moment - int(published[thing])
            since = min([age, *(moment - t for t in before)])
            counts = [sum(t >= moment - span for t in before) for span in (10**10, 600, 3600, 21_600, 86_400)]
            told = [math.log1p(max(age, 0)) / 10, math.log1p(max(since, 0)) / 10, *map(math.log1p, counts)]
            assert row.tolist() == pytest.approx(told if timing == "heat" else told[:1], rel=1e-6)


def protocol_of(task: Task) -> EvaluationProtocol:
    return EvaluationProtocol(fresh_days=7.0) if task == "Rec" else EvaluationProtocol()


def test_times_are_added_to_the_scores_of_comments(comments: Comments) -> None:
    plain, cases = opened(comments, config_of(comments, "CommRank"))
    timed, _ = opened(comments, config_of(comments, "CommRank", timing="heat"))
    assert isinstance(plain, CommentModule) and isinstance(timed, CommentModule) and timed.timing is not None
    timed.model.load_state_dict(plain.model.state_dict())
    batch = CommentDataset(timed.streams, cases.test, None, seed=0)[BatchKey(np.arange(9), 0, 0)]
    assert batch.times is not None
    torch.testing.assert_close(timed.scores(batch)[0], plain.scores(batch)[0] + timed.timing(batch.times) / 0.07)
    silent = replace(comments, published=None)
    with pytest.raises(UserError, match="does not say when candidates appeared"):
        open_streams(silent, config_of(comments, "CommRank", timing="age"), None)


@pytest.mark.parametrize("most", [-1, 3])
def test_a_fresh_video_is_told_from_others_of_the_last_days(most: int, comments: Comments) -> None:
    config = config_of(comments, timing="heat", protocol=protocol_of("Rec"), neg_video_num=most, id_text_loss_weight=0)
    module, _ = opened(comments, config)
    dataset, published = comments.dataset, comments.item_published
    assert isinstance(module, VideoModule) and module.fresh is not None and module.timing is not None
    assert dataset.timestamps is not None and published is not None and module.streams.clock is not None
    train = leave_one_out(dataset).train
    data = VideoCases(module.streams, train, 0, module.fresh, most)
    week = 7 * 86_400
    fresh = [
        at
        for start, end in zip(train.starts.tolist(), train.ends.tolist(), strict=True)
        for at in range(start + 1, end)
        if 0 <= dataset.timestamps[at] - published[dataset.items[at]] <= week
    ]
    assert data.at.tolist() == fresh
    rows = np.arange(0, len(data.at), 7)
    batch = data[BatchKey(rows, 1, 0)]
    users = module.user_vectors(batch.inputs)
    losses = []
    assert batch.others is not None
    for number, row in enumerate(rows):
        user, time = int(data.moments.users[row]), int(data.moments.times[row])
        had = known_before(comments, user, time + 1)[0]
        others = [i for i in range(1, len(published)) if 0 <= time - published[i] <= week and i not in had]
        drawn = batch.others[number][batch.others[number] > 0].tolist()
        assert set(drawn) <= set(others) and len(drawn) == min(len(others), most if most > 0 else len(others))
        items = [int(batch.targets[number]), *drawn]
        times = module.streams.clock.read(np.array(items), np.full(len(items), time))
        scores = module.item_vectors()[items] @ users[number] + module.timing(times) / 0.07
        losses.append(-scores.log_softmax(0)[0])
    torch.testing.assert_close(module.training_step(batch), torch.stack(losses).mean())


# Runs


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


def test_fresh_videos_are_ranked_as_one_by_one(comments: Comments, tmp_path: Path) -> None:
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
