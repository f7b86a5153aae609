"""Ranking by dot product against brute force in float64, and metrics over several processes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqrec.basics.errors import UserError
from seqrec.data.dataset import Dataset
from seqrec.data.splits import leave_one_out
from seqrec.evaluation import ranking
from seqrec.evaluation.metrics import measure
from seqrec.evaluation.ranking import (
    Ranking,
    leave_out,
    rank_few,
    rank_listed,
    rank_scores,
    rank_targets,
    seen_pairs,
    top_items,
    top_scores,
)
from seqrec.evaluation.recorder import RankRecorder
from tests import forked

Problem = tuple[Tensor, Tensor, Tensor]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Users, items and targets: items repeated now and then, values coarse or fine, small or huge."""
    seed = draw(st.integers(0, 2**31))
    num_users, num_items, width = draw(st.integers(1, 9)), draw(st.integers(1, 40)), draw(st.sampled_from([1, 3, 64]))
    generator = torch.Generator().manual_seed(seed)
    if draw(st.booleans()):  # whole numbers tie often and are exact in any order of summation
        users = torch.randint(-2, 3, (num_users, width), generator=generator).float()
        items = torch.randint(-2, 3, (num_items + 1, width), generator=generator).float()
    else:
        users = torch.randn(num_users, width, generator=generator)
        items = torch.randn(num_items + 1, width, generator=generator)
    copies = torch.randint(1, num_items + 1, (num_items // 2, 2), generator=generator)
    items[copies[:, 0]] = items[copies[:, 1]]
    items = items * 10.0 ** draw(st.sampled_from([-22, -3, 0, 6, 15]))
    users = users * 10.0 ** draw(st.sampled_from([-18, 0, 7]))
    items[0] = 0
    return users, items, torch.randint(1, num_items + 1, (num_users,), generator=generator)


def rank_slowly(users: Tensor, items: Tensor, targets: Tensor, candidates: list[set[int]]) -> Ranking:
    """Rank one pair at a time, by the float32 nearest to the exact dot product."""
    ranks, tied = [], []
    for user, target, others in zip(users, targets.tolist(), candidates, strict=True):
        score = {i: (user.double() * items[i].double()).sum().float().item() for i in others | {target}}
        ranks.append(sum(score[i] >= score[target] for i in others - {target}))
        tied.append(any(score[i] == score[target] for i in others - {target}))
    sizes = [len(others | {target}) for others, target in zip(candidates, targets.tolist(), strict=True)]
    return Ranking(torch.tensor(ranks), torch.tensor(sizes), torch.tensor(tied))


def assert_same(left: Ranking, right: Ranking) -> None:
    assert left.ranks.tolist() == right.ranks.tolist()
    assert left.num_candidates.tolist() == right.num_candidates.tolist()
    assert left.tied.tolist() == right.tied.tolist()


def test_by_hand() -> None:
    items = torch.tensor([[9.0], [1.0], [3.0], [2.0], [2.0]])  # row 0 would win if it were a candidate
    ranking = rank_targets(torch.tensor([[1.0], [1.0], [-1.0]]), items, torch.tensor([2, 3, 2]))
    assert ranking.ranks.tolist() == [0, 2, 3]  # best; behind item 2 and its double 4; worst for the one who dislikes
    assert ranking.tied.tolist() == [False, True, False]
    assert ranking.num_candidates.tolist() == [4, 4, 4]


def all_scores(users: Tensor, items: Tensor) -> Tensor:
    """Return the scores of all pairs, each the float32 nearest to its exact dot product."""
    return (users.double()[:, None] * items.double()).sum(dim=2).float()


@given(problems(), st.integers(1, 120))
def test_full_ranking_equals_brute_force(problem: Problem, chunk_elements: int) -> None:
    users, items, targets = problem
    everything = [set(range(1, len(items)))] * len(users)
    ranking = rank_targets(users, items, targets, chunk_elements=chunk_elements)
    assert_same(ranking, rank_slowly(users, items, targets, everything))
    assert_same(rank_scores(all_scores(users, items), targets), ranking)


@given(problems(), st.integers(1, 120), st.data())
def test_what_is_added_to_some_scores_counts(problem: Problem, chunk_elements: int, data: st.DataObject) -> None:
    users, items, targets = problem
    pair = st.tuples(st.integers(0, len(users) - 1), st.integers(1, len(items) - 1))
    pairs = torch.tensor(sorted(data.draw(st.sets(pair, max_size=30))), dtype=torch.int64).view(-1, 2)
    rows, columns = pairs.T
    values = torch.tensor(
        data.draw(st.lists(st.sampled_from([-1.5, 0.0, 2.0]), min_size=len(pairs), max_size=len(pairs)))
    )
    values = values.float() * users.abs().max() * items.abs().max()
    scores = all_scores(users, items).index_put((rows, columns), values, accumulate=True)
    extra = rows, columns, values
    assert_same(
        rank_targets(users, items, targets, extra=extra, chunk_elements=chunk_elements), rank_scores(scores, targets)
    )
    seen = rows, columns
    assert_same(
        rank_targets(users, items, targets, extra=extra, seen=seen, chunk_elements=chunk_elements),
        rank_scores(scores, targets, seen=seen),
    )
    some = data.draw(st.lists(pair, max_size=9))  # more of them, that nothing is added to
    more_rows, more_items = (torch.tensor([p[k] for p in some], dtype=torch.int64) for k in (0, 1))
    seen = torch.cat([rows, more_rows]), torch.cat([columns, more_items])
    every = rank_targets(users, items, targets, extra=extra)
    assert_same(leave_out(every, users, items, targets, seen, extra), rank_scores(scores, targets, seen=seen))
    negatives = torch.randint(0, len(items), (len(users), 5))
    negatives[negatives == targets[:, None]] = 0
    assert_same(
        rank_targets(users, items, targets, extra=extra, negatives=negatives, chunk_elements=chunk_elements),
        rank_scores(scores, targets, negatives=negatives),
    )


@given(problems(), st.data())
def test_few_scores_of_a_users_own_rank_as_all_of_them_do(problem: Problem, data: st.DataObject) -> None:
    users, items, targets = problem
    others = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=len(items), max_size=len(items)))
    pair = st.tuples(st.integers(0, len(users) - 1), st.integers(0, len(items) - 1))
    pairs = torch.tensor(sorted(data.draw(st.sets(pair, max_size=30))), dtype=torch.int64).view(-1, 2)
    values = data.draw(st.lists(st.sampled_from([-1.0, 0.5, 2.0]), min_size=len(pairs), max_size=len(pairs)))
    base, (rows, columns), own = torch.tensor(others), pairs.T, torch.tensor(values)
    scores = base.repeat(len(users), 1).index_put((rows, columns), own)
    seen_pairs = torch.tensor(data.draw(st.lists(pair, max_size=9)), dtype=torch.int64).view(-1, 2)
    for seen in (None, tuple(seen_pairs.T)):
        assert_same(rank_few((rows, columns, own), base, targets, seen=seen), rank_scores(scores, targets, seen=seen))


@given(problems(), st.integers(1, 120), st.data())
def test_seen_items_are_no_candidates(problem: Problem, chunk_elements: int, data: st.DataObject) -> None:
    users, items, targets = problem
    pair = st.tuples(st.integers(0, len(users) - 1), st.integers(1, len(items) - 1))
    seen = data.draw(st.lists(pair, max_size=30))  # with repetitions, and targets now and then
    candidates = [set(range(1, len(items))) - {i for r, i in seen if r == row} for row in range(len(users))]
    rows, seen_items = (torch.tensor([p[k] for p in seen], dtype=torch.int64) for k in (0, 1))
    ranking = rank_targets(users, items, targets, seen=(rows, seen_items), chunk_elements=chunk_elements)
    assert_same(ranking, rank_slowly(users, items, targets, candidates))
    assert_same(rank_scores(all_scores(users, items), targets, seen=(rows, seen_items)), ranking)
    every = rank_targets(users, items, targets, chunk_elements=chunk_elements)
    assert_same(leave_out(every, users, items, targets, (rows, seen_items)), ranking)


@given(problems(), st.integers(1, 500), st.data())
def test_sampled_ranking_equals_brute_force(problem: Problem, chunk_elements: int, data: st.DataObject) -> None:
    users, items, targets = problem
    size = data.draw(st.integers(1, len(items)))
    if len(items) - 2 < size:
        return
    negatives = [
        data.draw(st.permutations([i for i in range(1, len(items)) if i != target]))[:size]
        for target in targets.tolist()
    ]
    ranking = rank_targets(users, items, targets, negatives=torch.tensor(negatives), chunk_elements=chunk_elements)
    assert_same(ranking, rank_slowly(users, items, targets, [set(row) for row in negatives]))
    assert_same(rank_scores(all_scores(users, items), targets, negatives=torch.tensor(negatives)), ranking)


@pytest.mark.parametrize("scale", [1.0, 1e12])
def test_ranks_do_not_depend_on_how_the_work_is_cut(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(60, 48, generator=generator), scale * torch.randn(701, 48, generator=generator)
    items[350:] = items[1:352] + 1e-7 * scale * torch.randn(351, 48, generator=generator)  # near doubles of the others
    targets = torch.randint(1, 701, (60,), generator=generator)
    whole = rank_targets(users, items, targets)
    for chunk_elements in (1, 60, 1000, 60 * 699, 60 * 701):
        assert_same(whole, rank_targets(users, items, targets, chunk_elements=chunk_elements))
    for batch in (1, 7, 59):
        parts = [rank_targets(users[i : i + batch], items, targets[i : i + batch]) for i in range(0, 60, batch)]
        assert whole.ranks.tolist() == torch.cat([part.ranks for part in parts]).tolist()
        assert whole.tied.tolist() == torch.cat([part.tied for part in parts]).tolist()


def test_scores_stay_float32_under_autocast() -> None:
    generator = torch.Generator().manual_seed(1)
    users, items = torch.randn(50, 64, generator=generator), torch.randn(500, 64, generator=generator)
    targets = torch.randint(1, 500, (50,), generator=generator)
    whole = rank_targets(users, items, targets)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert_same(whole, rank_targets(users, items, targets))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.0])
def test_a_model_that_scores_all_alike_comes_last(constant: float) -> None:
    ranking = rank_targets(torch.full((2, 5), 0.3), torch.full((21, 5), constant), torch.tensor([1, 20]))
    assert ranking.ranks.tolist() == [19, 19]
    assert ranking.tied.all()


def test_many_near_scores_are_decided_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "CHUNK_ELEMENTS", 12)  # 4 pairs of width 3 at a time
    items = torch.full((30, 3), 0.1)
    items[7] *= 2
    assert rank_targets(torch.ones(2, 3), items, torch.tensor([3, 7])).ranks.tolist() == [28, 0]


def listed_slowly(scores: list[list[float]], relevant: list[list[bool]], ks: tuple[int, ...]) -> dict[str, list[float]]:
    """Return the metrics of users by sorting: with equal scores, what is not relevant comes first."""
    found: dict[str, list[float]] = {}
    for own, flags in zip(scores, relevant, strict=True):
        order = sorted(range(len(own)), key=lambda i: (-own[i], flags[i]))
        hits = [flags[i] for i in order]
        P, pairs = sum(hits), sum(hits) * (len(hits) - sum(hits))
        found.setdefault("MRR", []).append(1 / (1 + hits.index(True)))
        right = sum(hits[i] and not hits[j] for i in range(len(hits)) for j in range(i + 1, len(hits)))
        found.setdefault("AUC", []).append(right / pairs if pairs else 1.0)
        for k in ks:
            found.setdefault(f"Recall@{k}", []).append(sum(hits[:k]) / P)
            gain = sum(hit / math.log2(i + 2) for i, hit in enumerate(hits[:k]))
            found.setdefault(f"NDCG@{k}", []).append(gain / sum(1 / math.log2(i + 2) for i in range(min(P, k))))
    return found


@given(st.integers(0, 2**31))
def test_several_relevant_candidates_equal_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 15, rng.integers(1, 6))
    scores = [rng.integers(0, 6, n).astype(float).tolist() for n in lengths]  # many ties
    relevant = [(rng.permutation(n) < rng.integers(1, n + 1)).tolist() for n in lengths]
    flat = torch.tensor([x for own in scores for x in own]), torch.tensor([x for own in relevant for x in own])
    ranking = rank_listed(flat[0], torch.from_numpy(lengths), flat[1])
    recorder = RankRecorder((1, 3, 10), joint=True)
    users = np.repeat(np.arange(len(lengths)) * 7, [sum(own) for own in relevant])
    recorder.expect(users)
    recorder.add(torch.arange(len(users)), ranking)
    expected = listed_slowly(scores, relevant, (1, 3, 10))
    found = recorder.compute()
    assert {name: found[name] for name in expected} == pytest.approx({n: np.mean(v) for n, v in expected.items()})
    tied = [
        any(a == b and not f for b, f in zip(own, flags, strict=True))
        for own, flags in zip(scores, relevant, strict=True)
        for a, g in zip(own, flags, strict=True)
        if g
    ]
    assert ranking.tied.tolist() == tied


def test_errors() -> None:
    users, items, targets = torch.ones(2, 3), torch.ones(5, 3), torch.tensor([1, 4])
    for bad in (torch.nan, torch.inf):
        broken = users.clone()
        broken[1, 1] = bad
        with pytest.raises(ValueError, match="NaN or infinity: the model has diverged; try a lower --lr"):
            rank_targets(broken, items, targets)
        with pytest.raises(ValueError, match="NaN or infinity"):
            rank_targets(items, torch.full_like(items, bad), targets)
        with pytest.raises(ValueError, match="NaN or infinity"):
            rank_scores(broken, targets[:1])
    with pytest.raises(ValueError, match=r"targets must lie in 1..4, got 0..4"):
        rank_targets(users, items, torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="more than float32 holds"):
        rank_targets(1e20 * users, 1e20 * items, targets)


def test_seen_pairs_by_hand(tiny: Dataset) -> None:
    test = leave_one_out(tiny).test
    rows, items = seen_pairs(test, np.array([5, 2]))
    histories = [test.items[test.starts[row] : test.ends[row]].tolist() for row in (5, 2)]
    assert items.tolist() == histories[0] + histories[1]
    assert rows.tolist() == [0] * len(histories[0]) + [1] * len(histories[1])


def recorder_of(num_users: int) -> RankRecorder:
    """A recorder of one target for each user."""
    recorder = RankRecorder()
    recorder.expect(np.arange(num_users))
    return recorder


def made_up_ranking(users: np.ndarray) -> Ranking:
    """A ranking that depends on the user alone."""
    rank = torch.from_numpy(users * 7 % 60)
    return Ranking(rank, torch.from_numpy(60 + users % 3), rank % 4 == 0)


def add_all(recorder: RankRecorder, *batches: list[int]) -> None:
    for users in map(np.array, batches):
        recorder.add(torch.from_numpy(users), made_up_ranking(users))


def test_recorder_sums_over_users_and_divides_once() -> None:
    recorder = recorder_of(3)
    add_all(recorder, [2, 0], [1])  # a batch of one user
    assert recorder.ranks.tolist() == [0, 7, 14]
    metrics = measure(np.array([0, 7, 14]), np.array([60, 61, 62]))
    means = {name: math.fsum(values.tolist()) / 3 for name, values in metrics.items()}
    assert recorder.compute() == means | {"users": 3, "tied_users": 1 / 3}
    recorder.expect(np.arange(0))
    with pytest.raises(UserError, match="no user has a held-out item"):
        recorder.compute()


def test_recorder_refuses_to_average_over_some_of_the_targets() -> None:
    recorder = recorder_of(5)
    add_all(recorder, [0, 2], [4])
    with pytest.raises(RuntimeError, match="2 of 5 targets were not ranked"):
        recorder.compute()


def test_a_user_of_several_targets_counts_once() -> None:
    recorder = RankRecorder()
    recorder.expect(np.array([4, 4, 4, 6]))
    recorder.add(torch.arange(4), Ranking(torch.tensor([0, 1, 3, 1]), torch.tensor(9).expand(4), torch.arange(4) == 2))
    found = recorder.compute()
    assert found["MRR"] == pytest.approx(((1 + 1 / 2 + 1 / 4) / 3 + 1 / 2) / 2)
    assert found["Recall@1"] == pytest.approx((1 / 3 + 0) / 2)
    assert found["users"] == 2
    assert found["tied_users"] == pytest.approx(1 / 6)


@settings(max_examples=20)
@given(st.permutations(range(12)), st.integers(1, 11))
def test_recorder_does_not_depend_on_batches(order: list[int], cut: int) -> None:
    whole, parts = recorder_of(12), recorder_of(12)
    whole.add(torch.from_numpy(np.arange(12)), made_up_ranking(np.arange(12)))
    for users in (np.array(order[:cut]), np.array(order[cut:])):
        parts.add(torch.from_numpy(users), made_up_ranking(users))
    assert whole.compute() == parts.compute()


def record_as_one_of_two(rank: int, rendezvous: str, result: Path) -> None:
    """Record every other user, and user 4 twice; the first process writes what both computed."""
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
    recorder = recorder_of(10)
    users = np.append(np.arange(rank, 10, 2), 4)
    recorder.add(torch.from_numpy(users), made_up_ranking(users))
    metrics = recorder.compute()
    (result.with_suffix(f".{rank}")).write_text(repr((metrics, recorder.ranks.tolist())))
    dist.destroy_process_group()


def test_two_processes_give_the_metrics_of_one(tmp_path: Path) -> None:
    alone = recorder_of(10)
    alone.add(torch.from_numpy(np.arange(10)), made_up_ranking(np.arange(10)))
    expected = repr((alone.compute(), alone.ranks.tolist()))
    meeting = str(tmp_path / "meeting")
    both = [
        forked.start(record_as_one_of_two, rank, meeting, tmp_path / "result", output=tmp_path / "out")
        for rank in range(2)
    ]
    for process in both:
        process.join(60)
        assert process.exitcode == 0, (tmp_path / "out").read_text()
    for rank in range(2):
        assert (tmp_path / f"result.{rank}").read_text() == expected


@pytest.mark.parametrize("chunk_elements", [1, 40, 1 << 22])
@pytest.mark.parametrize("k", [1, 7, 100])
def test_top_items_are_those_of_the_whole_matrix(k: int, chunk_elements: int) -> None:
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(9, 5, generator=generator), torch.randn(31, 5, generator=generator)
    seen = torch.tensor([0, 0, 3, 3, 3]), torch.tensor([4, 4, 1, 30, 7])
    extra = torch.tensor([0, 2, 8]), torch.tensor([4, 9, 30]), torch.tensor([3.0, 9.0, -9.0])
    found, scores = top_items(users, items, k, seen, extra=extra, chunk_elements=chunk_elements)
    finite = (users @ items.T).index_put(extra[:2], extra[2], accumulate=True)
    matrix = finite.clone()
    matrix[:, 0] = -torch.inf
    matrix[seen] = -torch.inf
    expected, order = matrix.sort(dim=1, descending=True)
    width = min(k, 30)
    assert found.shape == (9, width)
    torch.testing.assert_close(scores, expected[:, :width])
    items_again, scores_again = top_scores(finite, k, seen)
    assert torch.equal(items_again, found)
    torch.testing.assert_close(scores_again, scores)
    assert torch.equal(found, order[:, :width].masked_fill(expected[:, :width] == -torch.inf, 0))
