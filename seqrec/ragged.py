"""Batches of sequences without padding. Shapes: B sequences, T tokens of all of them, L longest, D width, H heads.

Tokens of all sequences lie one after another in flat (T, ...) tensors, so embeddings, linear layers and norms never
see padding. Only attention is done on padded blocks, and those hold sequences of like length.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

_SHRINK, _SLACK = 0.6, 4
"""A block takes sequences down to 0.6 x its longest - 4 tokens."""


class Block(NamedTuple):
    """n sequences of like length as a padded (n, L) rectangle."""

    take: Tensor
    """(n * L,) int64 index of each cell's token in the flat tensor; padding repeats a valid one."""
    put: Tensor
    """(t,) int64 index of each of the block's t tokens in the rectangle."""
    mask: Tensor | None
    """(n, L) bool, true on tokens; None where nothing is padding."""
    shape: tuple[int, int]
    tokens: tuple[int, int]
    """Where the block's tokens begin and end in the flat tensor."""


class Layout(NamedTuple):
    """Where each sequence's tokens lie, and the blocks that attention works on."""

    offsets: Tensor
    """(B+1,) int64."""
    blocks: list[Block]

    @property
    def last(self) -> Tensor:
        """(B,) index of each sequence's last token; no sequence may be empty."""
        return self.offsets[1:] - 1


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
    blocks = []
    for first, last in block_bounds(lengths) if bounds is None else bounds:
        part, begin = lengths[first:last], offsets[first:last]
        width = int(part.max())
        column = np.arange(width)
        mask = column < part[:, None]  # (n, L)
        take = np.where(mask, begin[:, None] + column, begin[:, None])
        blocks.append(
            Block(
                take=torch.from_numpy(take.ravel()),
                put=torch.from_numpy(np.flatnonzero(mask)),
                mask=None if mask.all() else torch.from_numpy(mask),
                shape=(last - first, width),
                tokens=(int(offsets[first]), int(offsets[last])),
            )
        )
    return Layout(torch.from_numpy(offsets), blocks)


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
    out = []
    for ask, block in zip(asks.blocks, layout.blocks, strict=True):
        q, k, v = (
            _rectangle(query, ask, num_heads),
            _rectangle(key, block, num_heads),
            _rectangle(value, block, num_heads),
        )
        # Padding stands to the right of every token, so the causal mask hides it.
        triangle = causal and query_layout is None
        mask = None if triangle or block.mask is None else block.mask[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=triangle)
        flat = mixed.transpose(1, 2).reshape(-1, query.shape[1])
        out.append(flat if ask.mask is None else flat[ask.put])
    return out[0] if len(out) == 1 else torch.cat(out)


def _rectangle(x: Tensor, block: Block, num_heads: int) -> Tensor:
    """Return a block's tokens as (n, H, L, D / H)."""
    begin, end = block.tokens
    cells = x[begin:end] if block.mask is None else x[block.take]
    return cells.view(*block.shape, num_heads, -1).transpose(1, 2)


class BatchKey(NamedTuple):
    """One batch to be made: which rows, and what seeds its random choices."""

    rows: NDArray[np.int64]
    epoch: int
    number: int

    def generator(self, seed: int) -> np.random.Generator:
        """Return a generator that depends on (seed, epoch, batch) alone: the same for any number of workers."""
        return np.random.default_rng((seed, self.epoch, self.number))


class RowSampler(Sampler[BatchKey]):
    """Cuts rows into batches, each once per epoch, in an order fixed by (seed, epoch).

    With `batch_size`, a batch is that many rows. With `max_tokens`, rows of like length share a batch and a batch holds
    at most that many tokens, so work is even and padding, where any is needed, is small. Several processes take
    every n-th row of each batch.
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
    ) -> None:
        if (batch_size is None) == (max_tokens is None):
            raise ValueError("give one of batch_size and max_tokens")
        self.lengths, self.batch_size, self.max_tokens = lengths, batch_size, max_tokens
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        self.epoch = 0
        self._cut: tuple[int, list[NDArray[np.int64]]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives; the Trainer calls it."""
        self.epoch = epoch

    def batches(self) -> list[NDArray[np.int64]]:
        """Return the rows of this epoch's batches, over all processes."""
        if self._cut is None or self._cut[0] != self.epoch:
            self._cut = (self.epoch, self._cut_batches())
        return self._cut[1]

    def _cut_batches(self) -> list[NDArray[np.int64]]:
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(len(self.lengths)) if self.shuffle else np.arange(len(self.lengths))
        if self.batch_size is not None:
            return np.array_split(order, range(self.batch_size, len(order), self.batch_size)) if len(order) else []
        assert self.max_tokens is not None
        order = order[np.argsort(self.lengths[order], kind="stable")]
        batches, first = [], 0
        ends = np.cumsum(self.lengths[order])
        while first < len(order):
            before = ends[first - 1] if first else 0
            last = max(int(np.searchsorted(ends, before + self.max_tokens, side="right")), first + 1)
            batches.append(order[first:last])
            first = last
        if self.shuffle:
            batches = [batches[i] for i in generator.permutation(len(batches))]
        return batches

    def __iter__(self) -> Iterator[BatchKey]:
        for index, rows in enumerate(self.batches()):
            mine = rows[self.rank :: self.world_size]
            # A process without a row of its own repeats one, so that all take the same number of steps.
            yield BatchKey(mine if len(mine) else rows[:1], self.epoch, index)

    def __len__(self) -> int:
        return len(self.batches())
