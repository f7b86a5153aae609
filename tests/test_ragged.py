"""Ragged batches: attention against the dense padded formula, and samplers that cover every row once."""

from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from seqrec.data.batches import BatchKey, Rounds, RowSampler
from seqrec.nn.ragged import attend, cut_by_length, longest_first, make_layout

Sees = Literal["past", "all"]
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def attend_densely(query: Tensor, key: Tensor, value: Tensor, owner: Tensor, asker: Tensor, heads: int) -> Tensor:
    """Attention by the formula over all pairs of tokens, masked to those of the same sequence."""
    q, k, v = (x.view(len(x), heads, -1).transpose(0, 1) for x in (query, key, value))  # (H, T, D / H)
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(asker[:, None] != owner, -torch.inf)
    mixed: Tensor = scores.softmax(dim=-1) @ v
    return mixed.transpose(0, 1).reshape(query.shape)


def make_problem(lengths: NDArray[np.int64], width: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(int(lengths.sum()))
    flat = torch.randn(3, int(lengths.sum()), width, generator=generator, dtype=torch.float64)
    return flat, torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))


def assert_same_with_gradients(left: Tensor, right: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(left, right)
    weights = torch.randn(left.shape, generator=torch.Generator().manual_seed(0), dtype=left.dtype)
    gradients = [torch.autograd.grad((out * weights).sum(), inputs) for out in (left, right)]
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected)


@given(LENGTHS, st.sampled_from([1, 2, 3]), st.sampled_from(["past", "all"]))
def test_attention_equals_the_dense_formula(lengths: list[int], heads: int, sees: Sees) -> None:
    counts = np.sort(np.array(lengths))[::-1].copy()
    flat, owner = make_problem(counts)
    q, k, v = inputs = [x.requires_grad_() for x in flat]
    ours = attend(q, k, v, make_layout(counts), num_heads=heads, causal=sees == "past")
    if sees == "all":
        expected = attend_densely(q, k, v, owner, owner, heads)
    else:  # one query at a time, its keys cut off after it
        first = np.repeat(np.cumsum(counts) - counts, counts)
        rows = []
        for t, start in enumerate(first):
            past, none = slice(start, t + 1), torch.zeros(t + 1 - start)
            rows.append(attend_densely(q[t : t + 1], k[past], v[past], none, none[:1], heads))
        expected = torch.cat(rows)
    assert_same_with_gradients(ours, expected, inputs)


@given(LENGTHS, st.data())
def test_attention_of_some_tokens(lengths: list[int], data: st.DataObject) -> None:
    counts = np.sort(np.array(lengths))[::-1].copy()
    asked_counts = np.array([data.draw(st.integers(1, n)) for n in counts])
    flat, owner = make_problem(counts)
    _, key, value = (x.requires_grad_() for x in flat)
    query, asker = make_problem(asked_counts)
    asking = query[0].requires_grad_()
    bounds = cut_by_length(counts)
    layout, asked = make_layout(counts, bounds), make_layout(asked_counts, bounds)
    ours = attend(asking, key, value, layout, num_heads=2, causal=True, query_layout=asked)
    expected = attend_densely(asking, key, value, owner, asker, 2)  # they see the whole sequence
    assert_same_with_gradients(ours, expected, [asking, key, value])


def test_a_layout_by_hand() -> None:
    layout = make_layout(np.array([3, 2]))
    assert layout.offsets.tolist() == [0, 3, 5]
    assert layout.last.tolist() == [2, 4]
    (rectangle,) = layout.rectangles
    assert rectangle.shape == (2, 3)
    assert rectangle.mask is not None
    assert rectangle.mask[:, 0, 0].tolist() == [[True, True, True], [True, True, False]]
    assert layout.cells is not None
    assert layout.cells.tolist() == [0, 1, 2, 3, 4]  # the sixth cell is padding
    tokens = torch.arange(1.0, 6.0)[:, None]
    (part,) = layout.pack(tokens)
    assert part[:, :, 0].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert layout.unpack([part]).tolist() == tokens.tolist()
    full = make_layout(np.array([2, 2, 2]))
    assert full.rectangles[0].mask is None and full.cells is None  # nothing is padding


@given(LENGTHS)
def test_rectangles_hold_every_token_once_and_little_padding(lengths: list[int]) -> None:
    order = longest_first(np.array(lengths))
    counts = np.array(lengths)[order]
    assert (np.diff(counts) <= 0).all()
    layout = make_layout(counts)
    tokens = torch.arange(1.0, sum(lengths) + 1)[:, None]
    rectangles = layout.pack(tokens)
    assert layout.unpack(list(rectangles)).tolist() == tokens.tolist()
    assert sorted(cell for rows in rectangles for cell in rows.flatten().tolist() if cell) == tokens[:, 0].tolist()
    for rectangle in layout.rectangles:
        rows = rectangle.mask.sum(dim=3) if rectangle.mask is not None else torch.tensor([rectangle.shape[1]])
        assert rows.min() >= 0.6 * rectangle.shape[1] - 4


def test_sequences_of_similar_length_share_a_rectangle() -> None:
    # 40 takes down to 0.6 x 40 - 4 = 20, and 19 begins another, which takes down to 7.4.
    assert cut_by_length(np.array([40, 39, 20, 19, 8, 7])) == [(0, 3), (3, 5), (5, 6)]


@given(
    lengths=st.lists(st.integers(1, 30), max_size=40),
    batch=st.sampled_from([("batch_size", 1), ("batch_size", 7), ("max_tokens", 1), ("max_tokens", 64)]),
    shuffle=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_each_row_once_and_the_same_again(
    lengths: list[int], batch: tuple[str, int], shuffle: bool, epoch: int
) -> None:
    size: dict[str, Any] = dict([batch])
    counts = np.array(lengths, dtype=np.int64)
    sampler, twin = (RowSampler(counts, **size, shuffle=shuffle, seed=4) for _ in range(2))
    sampler.set_epoch(epoch)
    twin.set_epoch(epoch + 1)
    assert len(list(twin)) >= 0  # whatever was asked before does not matter
    twin.set_epoch(epoch)
    batches = list(sampler)
    assert len(sampler) == len(batches)
    assert sorted(row for key in batches for row in key.rows) == list(range(len(lengths)))
    assert [key.rows.tolist() for key in batches] == [key.rows.tolist() for key in twin]
    assert [(key.epoch, key.number) for key in batches] == [(epoch, number) for number in range(len(batches))]
    for key in batches:
        held = len(key.rows) if batch[0] == "batch_size" else sum(lengths[row] for row in key.rows)
        assert held <= batch[1] or len(key.rows) == 1


def test_shuffling_differs_by_epoch_and_seed() -> None:
    def orders(seed: int, epoch: int) -> list[list[int]]:
        sampler = RowSampler(np.arange(1, 51), batch_size=8, shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        return [key.rows.tolist() for key in sampler]

    assert orders(1, 0) != orders(1, 1)
    assert orders(1, 0) != orders(2, 0)
    assert orders(1, 0) == orders(1, 0)


@given(st.integers(1, 30), st.integers(1, 5), st.sampled_from([{"batch_size": 6}, {"max_tokens": 40}]))
def test_processes_share_out_each_batch(num_rows: int, world_size: int, size: dict[str, Any]) -> None:
    def make(rank: int, world: int) -> list[BatchKey]:
        lengths = np.arange(num_rows) % 9 + 1
        return list(RowSampler(lengths, **size, shuffle=True, seed=2, rank=rank, world_size=world))

    whole = make(0, 1)
    shares = [make(rank, world_size) for rank in range(world_size)]
    for number, key in enumerate(whole):
        parts = [share[number] for share in shares]
        assert all(len(part.rows) for part in parts)  # every process has something to do in every step
        assert all(part.number == key.number for part in parts)
        rows = np.concatenate([part.rows for part in parts])
        assert set(rows) == set(key.rows)
        counted = np.concatenate([part.rows for part in parts if part.counts])
        assert sorted(counted) == sorted(key.rows)  # nothing twice: a process without a row of its own counts nothing
        assert all(part.all_rows.tolist() == key.all_rows.tolist() == key.rows.tolist() for part in parts)


def test_a_generator_of_one_batch_alone() -> None:
    rows = np.array([1])
    draws = [BatchKey(rows, e, n).generator(s).random() for s, e, n in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len(set(draws)) == 4
    assert BatchKey(rows, 1, 2).generator(3).random() == BatchKey(np.array([5, 6]), 1, 2).generator(3).random()


def test_one_of_two_sizes() -> None:
    both: dict[str, Any] = {"batch_size": 2, "max_tokens": 2}
    for sizes in ({}, both):
        with pytest.raises(ValueError, match="give one of batch_size and max_tokens"):
            RowSampler(np.array([1]), **sizes, shuffle=False)


def test_a_round_goes_on_where_the_last_one_ended() -> None:
    rows = RowSampler(np.ones(23, dtype=np.int64), batch_size=5, shuffle=True, seed=3)
    whole = []
    for epoch in range(3):
        rows.set_epoch(epoch)
        whole += [(key.epoch, key.number, key.rows.tolist()) for key in rows]
    rounds = Rounds(RowSampler(np.ones(23, dtype=np.int64), batch_size=5, shuffle=True, seed=3), 4, 3)
    cut = []
    for number in range(rounds.count):
        rounds.set_epoch(number)
        keys = list(rounds)
        assert len(keys) == len(rounds)
        cut += [(key.epoch, key.number, key.rows.tolist()) for key in keys]
    assert cut == whole


def test_a_batch_is_of_one_group() -> None:
    groups = np.array([3, 8, 3, 3, 8, 3, 8, 3, 3, 3, 8])
    sampler = RowSampler(np.ones(11, dtype=np.int64), batch_size=3, shuffle=True, seed=0, groups=groups)
    orders = set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        batches = sampler.batches()
        assert len(batches) == 5  # of 7 rows three, of 4 rows two
        assert all(len(set(groups[batch])) == 1 for batch in batches)
        assert sorted(np.concatenate(batches)) == list(range(11))
        orders.add(tuple(groups[batch[0]] for batch in batches))
    assert len(orders) > 3
