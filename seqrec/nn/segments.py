"""Learned tokens inside histories, which attention cuts into segments: what is old reaches what is recent through them.

A window of S slots holds the latest events of a history, the newest in slot S - 1. After o_1 < o_2 < ... slots stand
groups of k_1, k_2, ... tokens, the same for all users. An event sees the events of its own segment up to itself, and
the tokens of all groups before; a token sees the events of the segment that it closes, and the tokens before it. So the
mask is a rectangle for each segment, and nothing is computed outside of them.

Shapes: B histories, T events of all, K tokens, E = T + B K rows: events and tokens in their order, history after
history; Q rows that ask, G rows that are seen, each once for every segment that sees it.
Source: personalised long histories, https://arxiv.org/abs/2601.03479. Deviation: histories are ragged, nothing is
computed for padding.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec.basics.arrays import ragged_arange
from seqrec.basics.errors import UserError
from seqrec.nn.ragged import Layout, cut_by_length, make_layout, mix, padded_layout, repeat_heads


class Group(NamedTuple):
    """Some tokens after a number of slots."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Window:
    """The slots of a history, and where tokens stand among them."""

    length: int
    """S."""
    groups: tuple[Group, ...] = ()
    apart: bool = False
    """Whether tokens see no event, but have the mean of the vectors of the segment that they close."""

    def __post_init__(self) -> None:
        last = 0
        for offset, size in self.groups:
            if not last < offset <= self.length:
                raise UserError(
                    f"tokens are inserted after {[group.offset for group in self.groups]} events: these numbers must "
                    f"ascend, from 1, and stay below the {self.length} events that are read"
                )
            if size < 1:
                raise UserError(f"a group of tokens after {offset} events has {size}: give 1 or more")
            last = offset

    @property
    def num_tokens(self) -> int:
        """K."""
        return sum(group.size for group in self.groups)

    @property
    def num_places(self) -> int:
        """Places of events and tokens, S + K."""
        return self.length + self.num_tokens

    @property
    def num_recent(self) -> int:
        """Slots after the last group."""
        return self.length - (self.groups[-1].offset if self.groups else 0)

    @property
    def old(self) -> "Window":
        """The slots and tokens before the recent ones."""
        return Window(self.length - self.num_recent, self.groups, self.apart)

    @property
    def token_places(self) -> NDArray[np.int64]:
        """(K,) places of the tokens, from 0."""
        sizes = [group.size for group in self.groups]
        return np.repeat([group.offset for group in self.groups], sizes) + np.arange(self.num_tokens)


class Segments(NamedTuple):
    """Which rows ask, and which these see, segment after segment.

    The segments of one rectangle see equally many tokens of earlier groups.
    """

    queries: Tensor
    """(Q,) int64 rows that ask."""
    keys: Tensor
    """(G,) int64 rows that are seen, the tokens of earlier groups first."""
    query_layout: Layout
    key_layout: Layout
    is_causal: bool
    """Whether query i of a segment sees the tokens of earlier groups and the rows up to its own, otherwise all."""

    def to(self, device: torch.device) -> "Segments":
        """Return the segments on a device."""
        queries, keys = (x.to(device, non_blocking=True) for x in (self.queries, self.keys))
        return Segments(queries, keys, self.query_layout.to(device), self.key_layout.to(device), self.is_causal)


class Rows(NamedTuple):
    """Histories with their tokens, or with tokens that a memory holds: these are rows after all events."""

    source: Tensor
    """(E,) int64 rows of a table of the T events and, after them, the K tokens."""
    places: Tensor
    """int64 in 0..S+K-1 of all rows, those of the memory too."""
    events: Tensor
    """(T,) int64 rows of the events."""
    tokens: Tensor
    """(B, K) int64 rows of the tokens."""
    segments: Segments
    """All rows ask but those of the memory."""
    closing: Tensor | None = None
    """(T,) int64: which of B m groups closes an event's segment, B m where none does; for tokens that are apart."""

    def to(self, device: torch.device) -> "Rows":
        """Return the rows on a device."""
        source, places, events, tokens = (
            x.to(device, non_blocking=True) for x in (self.source, self.places, self.events, self.tokens)
        )
        closing = None if self.closing is None else self.closing.to(device, non_blocking=True)
        return Rows(source, places, events, tokens, self.segments.to(device), closing)


def insert_tokens(lengths: NDArray[np.int64], window: Window) -> Rows:
    """Return the rows of histories whose tokens are among them.

    Args:
        lengths: (B,) events of each history, 0 to S, descending.
        window: The slots.
    """
    B, K, S = len(lengths), window.num_tokens, window.length
    bounds = [0, *(group.offset for group in window.groups), S]
    sizes = [group.size for group in window.groups]
    before = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))  # tokens before each segment
    # (B, m + 1) events of each segment, and the rows where it begins
    inside = np.diff(np.maximum(bounds, (S - lengths)[:, None]), axis=1)
    extent = inside + np.append(sizes, 0).astype(np.int64)
    starts = (np.cumsum(lengths + K) - lengths - K)[:, None] + np.cumsum(extent, axis=1) - extent
    tokens = np.repeat(starts[:, :-1] + inside[:, :-1] - before[:-1], sizes, axis=1) + np.arange(K)
    is_event = np.ones(int(lengths.sum()) + B * K, dtype=bool)
    is_event[tokens] = False
    events = np.flatnonzero(is_event)
    source, places = np.empty(len(is_event), dtype=np.int64), np.empty(len(is_event), dtype=np.int64)
    source[events], source[tokens] = np.arange(len(events)), len(events) + np.arange(K)
    places[events], places[tokens] = _places(lengths, window), window.token_places
    closing = None
    if window.apart:
        number = B * len(sizes)
        of_segments = np.append(np.arange(number).reshape(B, -1), np.full((B, 1), number), axis=1)
        closing = torch.from_numpy(np.repeat(of_segments, inside.flatten()))
        starts, extent = _beside(starts, starts + inside), _beside(inside, np.broadcast_to([*sizes, 0], inside.shape))
        before = np.repeat(before, 2)[:-1]
    return Rows(
        torch.from_numpy(source),
        torch.from_numpy(places),
        torch.from_numpy(events),
        torch.from_numpy(tokens),
        _all_segments(starts, extent, before, tokens),
        closing,
    )


def _beside(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (B, 2 m + 1) columns in turns from two of (B, m + 1), without the last of the second."""
    return np.stack([left, right], axis=2).reshape(len(left), -1)[:, :-1]


def rectangle_rows(lengths: Tensor, width: int, window: Window) -> Rows:
    """Return the rows of (B,) right-padded histories in flat (B * width, ...) tensors: padding counts as events.

    There are no tokens. All follows from the sizes of tensors, see `padded_layout`; a row sees none of the padding.
    """
    B = lengths.shape[0]
    own, layout = torch.arange(B * width), padded_layout(lengths, width)
    slots = (torch.arange(width) - lengths[:, None] + window.length).clamp(max=window.length - 1)
    segments = Segments(own, own, layout, layout, is_causal=True)
    return Rows(own, slots.flatten(), own, torch.zeros_like(lengths)[:, None][:, :0], segments)


def recent_events(lengths: NDArray[np.int64], window: Window, remembered: bool = True) -> Rows:
    """Return the rows of recent events whose users' tokens are in a memory, or that are read without any.

    Args:
        lengths: (B,) recent events of each history, 1 to those of the window, descending.
        window: The slots of whole histories.
        remembered: Whether there are tokens in a memory.
    """
    K = window.num_tokens if remembered else 0
    B, T = len(lengths), int(lengths.sum())
    tokens = T + np.arange(B * K).reshape(B, K)
    places = np.concatenate([_places(lengths, window), np.tile(window.token_places[:K], B)])
    own, bounds = np.arange(T), cut_by_length(lengths)
    segments = Segments(
        torch.from_numpy(own),
        torch.from_numpy(_after(tokens, own, lengths)),
        make_layout(lengths, bounds),
        make_layout(lengths + K, bounds),
        is_causal=True,
    )
    read = torch.from_numpy(own)
    return Rows(read, torch.from_numpy(places), read, torch.from_numpy(tokens), segments)


def newest_events(rows: Rows, lengths: NDArray[np.int64], window: Window) -> Segments:
    """Return the last segments of histories of (B,) descending lengths, whose newest events ask."""
    recent = np.minimum(lengths, window.num_recent)
    ends = rows.events.numpy()[np.cumsum(lengths) - 1] + 1
    bounds = cut_by_length(recent)
    return Segments(
        torch.from_numpy(ends - 1),
        torch.from_numpy(_after(rows.tokens.numpy(), ragged_arange(ends - recent, recent), recent)),
        make_layout(np.ones_like(recent), bounds),
        make_layout(recent + rows.tokens.shape[1], bounds),
        is_causal=False,
    )


def _places(lengths: NDArray[np.int64], window: Window) -> NDArray[np.int64]:
    """Return the places of the events of histories, whose newest stands in the last slot."""
    slot = ragged_arange(window.length - lengths, lengths)
    offsets = [group.offset for group in window.groups]
    before = np.cumsum([0, *(group.size for group in window.groups)])
    return np.asarray(slot + before[np.searchsorted(offsets, slot, side="right")])


def _all_segments(
    starts: NDArray[np.int64], extent: NDArray[np.int64], before: NDArray[np.int64], tokens: NDArray[np.int64]
) -> Segments:
    """Return the segments of all rows, from where each begins and how many rows it has, (B, m + 1) both."""
    queries: list[NDArray[np.int64]] = []
    keys: list[NDArray[np.int64]] = []
    lengths: list[NDArray[np.int64]] = []
    seen: list[NDArray[np.int64]] = []
    bounds: list[tuple[int, int]] = []
    for g, prefix in enumerate(before):
        users = np.flatnonzero(extent[:, g])
        users = users[np.argsort(-extent[users, g], kind="stable")]
        length, total = extent[users, g], sum(map(len, lengths))
        own = ragged_arange(starts[users, g], length)
        queries.append(own)
        keys.append(_after(tokens[users, :prefix], own, length))
        lengths.append(length)
        seen.append(length + prefix)
        bounds += [(total + a, total + b) for a, b in cut_by_length(length)]
    return Segments(
        torch.from_numpy(np.concatenate(queries)),
        torch.from_numpy(np.concatenate(keys)),
        make_layout(np.concatenate(lengths), bounds),
        make_layout(np.concatenate(seen), bounds),
        is_causal=True,
    )


def _after(tokens: NDArray[np.int64], own: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the (n, k) tokens of each segment, and after them its own rows."""
    return np.insert(own, np.repeat(np.cumsum(lengths) - lengths, tokens.shape[1]), tokens.flatten())


def attend_segments(
    query: Tensor, key: Tensor, value: Tensor, segments: Segments, *, dropout: float = 0.0, scale: float | None = None
) -> Tensor:
    """Return scaled dot-product attention within each segment, (Q, H, W).

    Args:
        query: (Q, H, W) of the rows that ask, in their order; H heads of width W.
        key: (E, G, W) of all rows; each of G heads serves H / G heads of queries.
        value: (E, G, W).
        segments: Which rows see which.
        dropout: Share of attention weights dropped.
        scale: Factor of the products; W**-0.5 if not given.
    """
    asked, seen, heads = segments.query_layout, segments.key_layout, query.shape[1]
    packed = zip(
        asked.pack(query), seen.pack(key[segments.keys]), seen.pack(value[segments.keys]), seen.rectangles, strict=True
    )
    out = []
    for q, k, v, rectangle in packed:
        q, k, v = (repeat_heads(x.transpose(1, 2), heads) for x in (q, k, v))
        L, M = q.shape[2], k.shape[2]
        triangle = segments.is_causal and (asked is seen or L == M)  # of one layout: also where sizes are symbols
        mask = rectangle.mask
        if segments.is_causal:
            # Padding stands to the right of every row, so the causal mask hides it.
            mask = None if triangle else _staircase(L, M, q.device)
        out.append(mix(q, k, v, mask, triangle, dropout, scale).transpose(1, 2))
    return asked.unpack(out)


@lru_cache(maxsize=64)
def _staircase(rows: int, columns: int, device: torch.device) -> Tensor:
    """Return (L, M) bool, true on the first M - L + 1 columns of the first row, and one more on each that follows."""
    return torch.ones(rows, columns, dtype=torch.bool, device=device).tril_(columns - rows)
