"""HSTU and SASRec over histories whose old events reach the recent ones through learned tokens.

Shapes: B users, T events of all, K tokens, E rows of events and tokens, Q rows that ask, D width.
Source: HSTU, Zhai et al. (2024), https://arxiv.org/abs/2402.17152; user tokens, https://arxiv.org/abs/2601.03479.
Deviations: histories are ragged, so nothing is computed for padding and nothing attends to it; HSTU's sums are divided
by the number of places, not of queries, so that a history's old part can be computed apart from its recent one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from PerSRec.encoder import HistoryEncoder, in_order
from PerSRec.options import ModelOptions
from seqrec.nn.blocks import CausalBlock, LigrBlock
from seqrec.nn.dropout import Dropout
from seqrec.nn.pointwise import NUM_BUCKETS, Bias, pointwise_attention, time_buckets
from seqrec.nn.segments import Rows, Segments, Window, attend_segments


class Relations(NamedTuple):
    """How far apart the rows of one rectangle are."""

    distances: Tensor | None
    """(n, L, C) int64 places between queries and the tokens before their segment."""
    buckets: Tensor | None
    """(n, L, M) uint8 buckets of the time between queries and keys."""


class View(NamedTuple):
    """What a block reads: segments, and how far apart their rows are, by rectangle."""

    segments: Segments
    relations: Sequence[Relations]
    normaliser: float
    """HSTU's sums are divided by it."""


def with_memory(x: Tensor, memory: Tensor | None, which: int) -> Tensor:
    """Return the (E, D) keys (0) or values (1) of rows, and after them those that a block's memory holds, if any."""
    return x if memory is None else torch.cat([x, memory[:, which].flatten(0, 1)])


class HSTUBlock(nn.Module):
    """Gated attention without a softmax, and a residual."""

    def __init__(self, options: ModelOptions, window: Window) -> None:
        super().__init__()
        width = options.hidden_units
        self.num_heads = options.n_heads
        self.gate_query = nn.Linear(width, 2 * width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(options.dropout_rate)
        relative = options.enable_relative_attention_bias
        self.position_bias = nn.Parameter(torch.empty(window.num_places).normal_(std=0.02)) if relative else None
        self.time_bias = nn.Parameter(torch.empty(NUM_BUCKETS + 1).normal_(std=0.02)) if options.time_bias else None
        for part in (self.gate_query, self.key_value):
            nn.init.normal_(part.weight, std=0.02)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, view: View, memory: Tensor | None = None) -> Tensor:
        """Return the (Q, D) of rows that ask, in the order of their segments, from (E, D).

        Args:
            x: (E, D).
            view: Which rows see which.
            memory: (B, 2, K, D) keys and values of tokens that are not among the rows.
        """
        asked = x[view.segments.queries]
        gate, query = F.silu(self.gate_query(_normed(asked))).chunk(2, dim=-1)
        key, value = (with_memory(part, memory, which) for which, part in enumerate(self.keys_values(x)))
        mixed = _normed(self._attend(query, key, value, view))
        out: Tensor = asked + self.out(self.dropout(gate * mixed))
        return out

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values of (..., D) rows."""
        key, value = F.silu(self.key_value(_normed(x))).chunk(2, dim=-1)
        return key, value

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, view: View) -> Tensor:
        segments = view.segments
        asked, seen = segments.query_layout, segments.key_layout
        packed = zip(
            asked.pack(query),
            seen.pack(key[segments.keys]),
            seen.pack(value[segments.keys]),
            view.relations,
            strict=True,
        )
        out = []
        for q, k, v, (distances, buckets) in packed:
            bias = None
            if self.position_bias is not None:
                bias = Bias(self.position_bias, distances, self.time_bias, buckets)
            q, k, v = (part.unflatten(2, (self.num_heads, -1)) for part in (q, k, v))
            mixed = pointwise_attention(q, k, v, causal=segments.is_causal, normaliser=view.normaliser, bias=bias)
            out.append(mixed.flatten(2))
        return asked.unpack(out)


def _normed(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class SASRecBlock(nn.Module):
    """Attention and a feed-forward network, each followed by its residual and norm."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        width, rate = options.hidden_units, options.dropout_rate
        self.num_heads = options.n_heads
        self.attention_dropout = rate if options.attn_dropout_prob is None else options.attn_dropout_prob
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.attention_out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, options.inner_size * width),
            nn.GELU(),
            nn.Linear(options.inner_size * width, width),
            Dropout(rate),
        )
        self.feed_forward_norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = Dropout(rate)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)

    def forward(self, x: Tensor, view: View, memory: Tensor | None = None) -> Tensor:
        """Return the (Q, D) of rows that ask; for the arguments see `HSTUBlock.forward`."""
        asked = x[view.segments.queries]
        key, value = (with_memory(part, memory, which) for which, part in enumerate(self.keys_values(x)))
        rate = self.attention_dropout if self.training else 0.0
        query, key, value = (part.unflatten(1, (self.num_heads, -1)) for part in (self.query(asked), key, value))
        mixed = attend_segments(query, key, value, view.segments, dropout=rate).flatten(1)
        asked = self.attention_norm(asked + self.dropout(self.attention_out(mixed)))
        out: Tensor = self.feed_forward_norm(asked + self.feed_forward(asked))
        return out

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values of (..., D) rows."""
        key, value = self.key_value(x).chunk(2, dim=-1)
        return key, value


class SharedBlock(nn.Module):
    """A block of the SASRec folder."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        make_block = CausalBlock if options.block == "sasrec" else LigrBlock
        self.block = make_block(options.hidden_units, options.n_heads, options.dropout_rate)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_normal_(part.weight)

    def forward(self, x: Tensor, view: View, memory: Tensor | None = None) -> Tensor:
        """Return the (Q, D) of rows that ask; for the arguments see `HSTUBlock.forward`."""
        segments, block = view.segments, self.block

        def attend_to(asked: Tensor, events: Tensor) -> Tensor:
            key, value = (
                with_memory(part, memory, which) for which, part in enumerate(block.key_value(events).chunk(2, dim=-1))
            )
            query, key, value = (part.unflatten(1, (block.num_heads, -1)) for part in (block.query(asked), key, value))
            rate = block.dropout_rate if self.training else 0.0
            mixed = attend_segments(query, key, value, segments, dropout=rate)
            out: Tensor = block.attention_out(mixed.flatten(1))
            return out

        return block.read(x, segments.queries, attend_to)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values of (..., D) rows."""
        key, value = self.block.key_value(self.block.source(x)).chunk(2, dim=-1)
        return key, value


def make_block(options: ModelOptions, window: Window) -> HSTUBlock | SASRecBlock | SharedBlock:
    """Return a block that the flags describe."""
    if options.model == "hstu":
        return HSTUBlock(options, window)
    return SASRecBlock(options) if options.block == "post_norm" else SharedBlock(options)


class BlockEncoder(HistoryEncoder):
    """Places, and blocks of HSTU or SASRec."""

    def __init__(self, options: ModelOptions, window: Window) -> None:
        super().__init__(window, options.hidden_units)
        self.options, self.timed = options, options.time_bias
        self.places = nn.Embedding(window.num_places, self.width)
        self.dropout = Dropout(options.dropout_rate)
        is_shared = options.block != "post_norm"
        self.norm = nn.LayerNorm(self.width, eps=1e-12) if options.model == "sasrec" and not is_shared else None
        self.last_norm = nn.LayerNorm(self.width, eps=1e-8) if is_shared else nn.Identity()
        self.blocks = nn.ModuleList(make_block(options, window) for _ in range(options.n_layers))
        nn.init.normal_(self.places.weight, std=0.02)

    @property
    def memory_shape(self) -> tuple[int, int, int, int]:
        """(blocks, 2, K, D)."""
        return len(self.blocks), 2, self.window.num_tokens, self.width

    def forward(
        self,
        vectors: Tensor,
        rows: Rows,
        seconds: Tensor | None = None,
        newest: Segments | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """Return (T, D), or (B, D) for the newest events, see `HistoryEncoder`."""
        x = self._enter(vectors, rows)
        asking = self.window.num_places if memory is None else self.window.num_recent
        view = self._view(rows.segments, rows.places, seconds, asking)
        kept = [None] * len(self.blocks) if memory is None else memory.unbind(1)
        for block, own in zip(self.blocks[:-1], kept[:-1], strict=True):
            x = in_order(rows, self._run(block, x, view, own))
        if newest is not None:
            view = self._view(newest, rows.places, seconds, asking)
        asked = self.last_norm(self._run(self.blocks[-1], x, view, kept[-1]))
        return asked if newest is not None else in_order(rows, asked)[rows.events]

    def _run(self, block: nn.Module, x: Tensor, view: View, memory: Tensor | None) -> Tensor:
        """Return what a block makes of (E, D), which for the gradients is computed again where the options say so."""
        if self.options.gradient_checkpointing and self.training:
            again: Tensor = checkpoint(block, x, view, memory, use_reentrant=False)
            return again
        out: Tensor = block(x, view, memory)
        return out

    def compress(self, vectors: Tensor, rows: Rows, seconds: Tensor | None = None) -> Tensor:
        """Return the keys and values of users' tokens in each block, (B, blocks, 2, K, D), see `HistoryEncoder`."""
        x, kept = self._enter(vectors, rows), []
        view = self._view(rows.segments, rows.places, seconds, self.window.old.num_places)
        for number, block in enumerate(self.blocks):
            assert isinstance(block, HSTUBlock | SASRecBlock | SharedBlock)
            kept.append(torch.stack(block.keys_values(x[rows.tokens]), dim=1))
            if number < len(self.blocks) - 1:
                x = in_order(rows, block(x, view))
        return torch.stack(kept, dim=1)

    def _enter(self, vectors: Tensor, rows: Rows) -> Tensor:
        """Return what the first block reads, (E, D)."""
        x = self.with_tokens(vectors, rows)
        places = self.places(rows.places[: x.shape[0]])
        if self.norm is None:
            entered: Tensor = self.dropout(torch.add(places, x, alpha=self.options.hidden_units**0.5))
            return entered
        entered = self.dropout(self.norm(x + places))
        return entered

    def _view(self, segments: Segments, places: Tensor, seconds: Tensor | None, asking: int) -> View:
        """Return how far apart the rows of each rectangle are, where blocks depend on it.

        Args:
            segments: Which rows see which.
            places: Of all rows.
            seconds: Their times.
            asking: Places that ask, by which the published code divides.
        """
        normaliser = float(asking if self.options.compat == "published" else self.window.num_places)
        rectangles = len(segments.key_layout.rectangles)
        if self.options.model == "sasrec" or not self.options.enable_relative_attention_bias:
            return View(segments, [Relations(None, None)] * rectangles, normaliser)
        asked, seen = (
            layout.pack(places[index])
            for layout, index in ((segments.query_layout, segments.queries), (segments.key_layout, segments.keys))
        )
        found = []
        for q, k in zip(asked, seen, strict=True):
            C = k.shape[1] - q.shape[1]
            found.append((q[:, :, None] - k[:, None, :C]).clamp_(min=0) if C else None)
        if seconds is None:
            return View(segments, [Relations(distances, None) for distances in found], normaliser)
        times = zip(
            segments.query_layout.pack(seconds[segments.queries]),
            segments.key_layout.pack(seconds[segments.keys]),
            strict=True,
        )
        return View(segments, [Relations(d, time_buckets(*t)) for d, t in zip(found, times, strict=True)], normaliser)
