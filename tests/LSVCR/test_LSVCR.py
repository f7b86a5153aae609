"""LSVCR: histories by the rule, the model by its equations, the losses by hand."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from LSVCR.cases import CommentDataset, VideoCases
from LSVCR.data import DrawnBy, Moments, Streams, open_streams
from LSVCR.model import Inputs, SRModel, id_text_contrast
from LSVCR.module import CommentModule, VideoModule
from LSVCR.options import Task, Timing
from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey
from seqrec.data.comments import Comments
from seqrec.data.splits import leave_one_out
from tests.LSVCR.made_up import SMALL, WIDTH, config_of, known_before, make_comments, opened, protocol_of
from tests.test_comments import read, write_tables


@pytest.fixture(scope="module")
def comments(tmp_path_factory: pytest.TempPathFactory) -> Comments:
    return make_comments(tmp_path_factory.mktemp("lsvcr"))


# Histories


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
