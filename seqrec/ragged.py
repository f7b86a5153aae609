"""Batches of sequences without padding. Shapes: B sequences, T tokens of all of them, L longest, D width, H heads.

Tokens of all sequences lie one after another in flat (T, ...) tensors, so embeddings, linear layers and norms never
see padding. Only attention is done on padded blocks, and those hold sequences of like length.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from seqrec.draws import RowDraws
from seqrec.dropout import dropout as drop_weights

_SHRINK, _SLACK = 0.6, 4
"""A block takes sequences down to 0.6 x its longest - 4 tokens."""


class Block(NamedTuple):
    """n sequences of like length as a padded (n, L) rectangle."""

    shape: tuple[int, int]
    mask: Tensor | None
    """(n, 1, 1, L) bool, true on tokens; None where nothing is padding."""


class Layout(NamedTuple):
    """Where each sequence's tokens lie, and the blocks that attention works on."""

    offsets: Tensor
    """(B+1,) int64."""
    cells: Tensor | None
    """(T,) int64 cell of each token, the rectangles laid end to end; None where nothing is padding."""
    blocks: list[Block]

    @property
    def last(self) -> Tensor:
        """(B,) index of each sequence's last token; no sequence may be empty."""
        return self.offsets[1:] - 1

    def pack(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return each block's rows, (n * L, D) with zeros in padding, from (T, D)."""
        sizes = [n * length for n, length in (block.shape for block in self.blocks)]
        if self.cells is not None:
            x = x.new_zeros(sum(sizes), x.shape[1]).index_copy_(0, self.cells, x)
        rows: tuple[Tensor, ...] = x.split(sizes)
        return rows

    def unpack(self, rows: list[Tensor]) -> Tensor:
        """Return (T, D) from each block's rows."""
        x = rows[0] if len(rows) == 1 else torch.cat(rows)
        return x if self.cells is None else x.index_select(0, self.cells)


def longest_first(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the (B,) order in which a batch holds its sequences, so that sequences of like length are neighbours."""
    return np.argsort(-lengths, kind="stable")


def block_bounds(lengths: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Cut (B,) descending lengths into stretches of like length, as (first, one past the last) sequence."""
    bounds, first = [], 0
    while first < len(lengths):
        shortest = lengths[first] * _SHRINK - _SLACK
        last = int(np.searchsorted(-lengths, -shortest, side="right"))
        bounds.append((first, max(last, first + 1)))
        first = bounds[-1][1]
    return bounds


def make_layout(lengths: NDArray[np.int64], bounds: list[tuple[int, int]] | None = None) -> Layout:
    """Return the layout of a batch.

    Args:
        lengths: (B,) tokens of each sequence, at least 1, descending unless bounds are given.
        bounds: The blocks as stretches of sequences, so that two layouts (queries, keys) share them.
    """
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    blocks, starts, total = [], np.empty(len(lengths), dtype=np.int64), 0
    for first, last in block_bounds(lengths) if bounds is None else bounds:
        part = lengths[first:last]
        width, n = int(part.max()), last - first
        padded = int(part.min()) < width
        mask = torch.from_numpy((np.arange(width) < part[:, None])[:, None, None]) if padded else None
        blocks.append(Block((n, width), mask))
        starts[first:last] = total + np.arange(n) * width
        total += n * width
    cells = None
    if total > offsets[-1]:
        cells = torch.from_numpy(np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths))
    return Layout(torch.from_numpy(offsets), cells, blocks)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    *,
    num_heads: int,
    causal: bool,
    dropout: float = 0.0,
    query_layout: Layout | None = None,
) -> Tensor:
    """Return scaled dot-product attention within each sequence.

    Args:
        query: (T, D), or (Q, D) under `query_layout`.
        key: (T, D).
        value: (T, D).
        layout: Of keys and values.
        num_heads: H, a divisor of D.
        causal: Whether a token sees only itself and those before it.
        dropout: Share of attention weights dropped.
        query_layout: Where only some tokens ask: their layout, over the same blocks. They see the whole sequence.

    Returns:
        (T, D) or (Q, D), in the order of `query`.
    """
    asks = layout if query_layout is None else query_layout
    triangle = causal and query_layout is None
    width = query.shape[1]
    rows = zip(asks.pack(query), layout.pack(key), layout.pack(value), asks.blocks, layout.blocks, strict=True)
    out = []
    for q, k, v, ask, block in rows:
        q = q.view(*ask.shape, num_heads, -1).transpose(1, 2)  # (n, H, L, E)
        k, v = (x.view(*block.shape, num_heads, -1).transpose(1, 2) for x in (k, v))
        # Padding stands to the right of every token, so the causal mask hides it.
        mixed = _mix(q, k, v, None if triangle else block.mask, triangle, dropout)
        out.append(mixed.transpose(1, 2).reshape(-1, width))
    return asks.unpack(out)


def _mix(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, triangle: bool, dropout: float) -> Tensor:
    """Return each query's weighted mean of the values, (n, H, L, E)."""
    if not dropout or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=triangle)
    # With dropout PyTorch has no fused form on a CPU; this one draws its mask more cheaply.
    n, H, L, E = q.shape
    q, k, v = (x.reshape(n * H, -1, E) for x in (q, k, v))
    if triangle:
        scores = torch.baddbmm(_triangle(L), q, k.transpose(1, 2), alpha=E**-0.5)
    else:
        scores = torch.bmm(q, k.transpose(1, 2)) * E**-0.5
        if mask is not None:
            scores = scores.view(n, H, L, -1).masked_fill(~mask, -torch.inf).view(n * H, L, -1)
    return torch.bmm(drop_weights(scores.softmax(-1), dropout), v).view(n, H, L, E)


@lru_cache(maxsize=64)
def _triangle(length: int) -> Tensor:
    """Return (L, L): 0 where a token is seen, -inf where it comes later."""
    return torch.full((length, length), -torch.inf).triu_(1)


class BatchKey(NamedTuple):
    """One batch to be made: which rows, and what seeds its random choices."""

    rows: NDArray[np.int64]
    epoch: int
    number: int
    batch_rows: NDArray[np.int64] | None = None
    """The whole batch's rows, where several processes split it; else None."""
    counts: bool = True
    """False where a batch has fewer rows than there are processes, and this one repeats another's to keep step."""

    @property
    def all_rows(self) -> NDArray[np.int64]:
        """The rows of the batch, over all processes."""
        return self.rows if self.batch_rows is None else self.batch_rows

    def generator(self, seed: int) -> np.random.Generator:
        """Return a generator for what the batch shares: it depends on (seed, epoch, batch), in every process alike."""
        return np.random.default_rng((seed, self.epoch, self.number))

    def draws(self, seed: int, rows: NDArray[np.int64], purpose: str) -> RowDraws:
        """Return draws for some of the rows, which depend on (seed, epoch, row), in whatever batch or process."""
        return RowDraws(seed, self.epoch, rows, purpose)


class RowSampler(Sampler[BatchKey]):
    """Cuts rows into batches, each once per epoch, in an order fixed by (seed, epoch).

    With `batch_size`, a batch is that many rows. With `max_tokens`, rows of like length share a batch and a batch holds
    at most that many tokens, so work is even and padding, where any is needed, is small. Several processes take
    every n-th row of each batch. With `groups`, (n,) numbers, a batch of `batch_size` holds rows of one group alone.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        *,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        groups: NDArray[np.int64] | None = None,
    ) -> None:
        if (batch_size is None) == (max_tokens is None):
            raise ValueError("give one of batch_size and max_tokens")
        self.lengths, self.batch_size, self.max_tokens, self.groups = lengths, batch_size, max_tokens, groups
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        self.epoch = 0
        self._cut: tuple[int, list[NDArray[np.int64]]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives; the Trainer calls it."""
        self.epoch = epoch

    def spread(self, rank: int, world_size: int) -> None:
        """Give every batch's rows to that many processes, of which this is the `rank`-th."""
        self.rank, self.world_size = rank, world_size

    def batches(self) -> list[NDArray[np.int64]]:
        """Return the rows of this epoch's batches, over all processes."""
        if self._cut is None or self._cut[0] != self.epoch:
            self._cut = (self.epoch, self._cut_batches())
        return self._cut[1]

    def _cut_batches(self) -> list[NDArray[np.int64]]:
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(len(self.lengths)) if self.shuffle else np.arange(len(self.lengths))
        if self.batch_size is not None:
            if self.groups is None:
                return _slices(order, self.batch_size)
            apart = [order[self.groups[order] == group] for group in np.unique(self.groups)]
            batches = [batch for part in apart for batch in _slices(part, self.batch_size)]
            return [batches[i] for i in generator.permutation(len(batches))] if self.shuffle else batches
        assert self.max_tokens is not None
        order = order[np.argsort(self.lengths[order], kind="stable")]
        batches = []
        first = 0
        ends = np.cumsum(self.lengths[order])
        while first < len(order):
            before = ends[first - 1] if first else 0
            last = max(int(np.searchsorted(ends, before + self.max_tokens, side="right")), first + 1)
            batches.append(order[first:last])
            first = last
        if self.shuffle:
            batches = [batches[i] for i in generator.permutation(len(batches))]
        return batches

    def key(self, index: int) -> BatchKey:
        """Return this process's share of one of the epoch's batches."""
        rows = self.batches()[index]
        if self.world_size == 1:
            return BatchKey(rows, self.epoch, index)
        mine = rows[self.rank :: self.world_size]
        return BatchKey(mine if len(mine) else rows[:1], self.epoch, index, rows, counts=len(mine) > 0)

    def __iter__(self) -> Iterator[BatchKey]:
        return map(self.key, range(len(self.batches())))

    def __len__(self) -> int:
        return len(self.batches())


def _slices(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return np.array_split(order, range(size, len(order), size)) if len(order) else []


class Rounds(Sampler[BatchKey]):
    """A sampler's epochs, cut into rounds of so many batches: what a Trainer takes for an epoch is a round.

    So a long epoch is validated, and can be resumed, in between. Rounds go on through the end of an epoch.
    """

    def __init__(self, sampler: RowSampler, steps: int, num_epochs: int) -> None:
        self.sampler, self.steps, self.total = sampler, steps, num_epochs * len(sampler)
        self.round, self.seed, self.spread = 0, sampler.seed, sampler.spread

    @property
    def count(self) -> int:
        """Return how many rounds there are; the last may be short."""
        return -(-self.total // self.steps)

    def set_epoch(self, epoch: int) -> None:
        """Choose the round that the next iteration gives; the Trainer calls it."""
        self.round = epoch

    def __iter__(self) -> Iterator[BatchKey]:
        first = self.round * self.steps
        for position in range(first, min(first + self.steps, self.total)):
            epoch, index = divmod(position, len(self.sampler))
            self.sampler.set_epoch(epoch)
            yield self.sampler.key(index)

    def __len__(self) -> int:
        return min(self.steps, self.total - self.round * self.steps)
