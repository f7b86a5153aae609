"""Batches of sequences without padding. Shapes: B sequences, T tokens of all of them, L longest, D width, H heads.

Tokens of all sequences lie one after another in flat (T, ...) tensors, so embeddings, linear layers and norms never
see padding. Only attention works on padded rectangles, each of sequences of similar length.
"""

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from seqrec.nn.dropout import dropout as drop_weights
from seqrec.nn.rotation import Rotation, turn_by_position

CPU_GRANULARITY, GPU_GRANULARITY = 1, 64
"""Lengths are rounded up to a multiple, and equal ones share a rectangle; 1 pads nothing."""
_SHRINK, _SLACK = 0.6, 4
"""A rectangle takes sequences down to 0.6 x its longest - 4 tokens."""


class Rectangle(NamedTuple):
    """n sequences of similar length as a padded (n, L) rectangle."""

    shape: tuple[int, int]
    mask: Tensor | None
    """(n, 1, 1, L) bool, true on tokens; None where nothing is padding."""


class Layout(NamedTuple):
    """Where each sequence's tokens lie, and the rectangles that attention works on."""

    offsets: Tensor
    """(B+1,) int64."""
    cells: Tensor | None
    """(T,) int64 cell of each token when the rectangles are concatenated; None where nothing is padding."""
    rectangles: list[Rectangle]

    @property
    def last(self) -> Tensor:
        """(B,) index of each sequence's last token; no sequence may be empty."""
        return self.offsets[1:] - 1

    def pack(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return each rectangle's tokens, (n, L, ...) with zeros in padding, from (T, ...)."""
        shapes = [rectangle.shape for rectangle in self.rectangles]
        sizes = [n * length for n, length in shapes]
        if self.cells is not None:
            x = x.new_zeros(sum(sizes), *x.shape[1:]).index_copy_(0, self.cells, x)
        # Split, never sliced: the backward of a slice writes a full-size gradient for every rectangle.
        return tuple(part.view(*shape, *x.shape[1:]) for part, shape in zip(x.split(sizes), shapes, strict=True))

    def to(self, device: torch.device) -> "Layout":
        """Return the layout on a device."""

        def moved(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device, non_blocking=True)

        rectangles = [Rectangle(rectangle.shape, moved(rectangle.mask)) for rectangle in self.rectangles]
        return Layout(self.offsets.to(device, non_blocking=True), moved(self.cells), rectangles)

    def unpack(self, parts: list[Tensor]) -> Tensor:
        """Return (T, ...) from each rectangle's tokens, (n, L, ...)."""
        rows = [part.flatten(0, 1) for part in parts]
        x = rows[0] if len(rows) == 1 else torch.cat(rows)
        return x if self.cells is None else x.index_select(0, self.cells)


def longest_first(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the (B,) order of a batch's sequences, longest first."""
    return np.argsort(-lengths, kind="stable")


def cut_by_length(lengths: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Cut (B,) descending lengths into ranges of similar length, as (first, last + 1)."""
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
        bounds: Rectangles as ranges of sequences, so that two layouts (queries, keys) can share them.
    """
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    rectangles, starts, total = [], np.empty(len(lengths), dtype=np.int64), 0
    for first, last in cut_by_length(lengths) if bounds is None else bounds:
        part = lengths[first:last]
        width, n = int(part.max()), last - first
        padded = int(part.min()) < width
        mask = torch.from_numpy((np.arange(width) < part[:, None])[:, None, None]) if padded else None
        rectangles.append(Rectangle((n, width), mask))
        starts[first:last] = total + np.arange(n) * width
        total += n * width
    cells = None
    if total > offsets[-1]:
        cells = torch.from_numpy(np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths))
    return Layout(torch.from_numpy(offsets), cells, rectangles)


def padded_layout(lengths: Tensor, width: int) -> Layout:
    """Return the layout of (B,) right-padded sequences in flat (B * width, ...) tensors: padding counts as tokens.

    All of it follows from the sizes of tensors, so that a graph that was traced once fits batches of any size.
    """
    B = lengths.shape[0]  # len() would be a constant of the graph
    mask = (torch.arange(width) < lengths[:, None])[:, None, None]
    ends = torch.arange(B) * width + lengths
    return Layout(F.pad(ends, (1, 0)), None, [Rectangle((B, width), mask)])


@dataclass(frozen=True, slots=True)
class Plan:
    """How a batch of token sequences is laid out in an encoder: computed once, read by every layer.

    Sequences of one length lie side by side, so on a CPU a rectangle is a view of the flat tokens, without padding or
    copies. A GPU prefers few large kernels: there lengths are rounded up, and rectangles are padded.
    """

    order: Tensor
    """(B,) int64: place i of the encoder holds sequence order[i] of the batch; lengths ascend."""
    token_order: Tensor
    """(T,) int64: row t of the encoder is token token_order[t] of the batch."""
    positions: Tensor
    """(T,) int64 position of each row within its sequence, from 0."""
    first: Tensor
    """(B,) int64 row of each sequence's first token."""
    lengths: Tensor
    """(B,) int64 tokens of each sequence, ascending."""
    layout: Layout
    """Where the sorted sequences lie, and the rectangles that attention works on."""
    masks: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """Attention masks by (length, reach), 0 or -inf; filled on first use."""
    rotations: dict[float, Rotation] = field(default_factory=dict)
    """Rotations by position, for each base; filled on first use."""

    def rotation(self, theta: float, width: int) -> Rotation:
        """Return the rotation of each row's heads at its position."""
        if theta not in self.rotations:
            self.rotations[theta] = turn_by_position(self.positions, theta, width)
        return self.rotations[theta]


def plan_batch(lengths: Tensor, device: torch.device) -> Plan:
    """Return the layout of a batch.

    Args:
        lengths: (B,) int64 on the CPU, each at least 1.
        device: Where the encoder runs.
    """
    granularity = CPU_GRANULARITY if device.type == "cpu" else GPU_GRANULARITY
    order = lengths.argsort(stable=True)
    sorted_lengths = lengths[order]
    first = sorted_lengths.cumsum(0) - sorted_lengths
    start = (lengths.cumsum(0) - lengths)[order]
    total = int(lengths.sum())
    positions = torch.arange(total) - first.repeat_interleave(sorted_lengths, output_size=total)
    token_order = positions + start.repeat_interleave(sorted_lengths, output_size=total)
    rounded = -(-sorted_lengths // granularity)
    ends = np.cumsum(np.unique(rounded, return_counts=True)[1]).tolist()
    layout = make_layout(sorted_lengths.numpy(), list(zip([0, *ends], ends, strict=False)))
    on_device = partial(torch.Tensor.to, device=device, non_blocking=True)
    return Plan(
        order=on_device(order),
        token_order=on_device(token_order),
        positions=on_device(positions),
        first=on_device(first),
        lengths=on_device(sorted_lengths),
        layout=layout.to(device),
    )


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
        query_layout: Layout of the queries, if only some tokens are queries; they see the whole sequence.

    Returns:
        (T, D) or (Q, D), in the order of `query`.
    """
    asks = layout if query_layout is None else query_layout
    triangle = causal and query_layout is None
    rows = zip(asks.pack(query), layout.pack(key), layout.pack(value), layout.rectangles, strict=True)
    out = []
    for q, k, v, rectangle in rows:
        q, k, v = (x.unflatten(2, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))  # (n, H, L, E)
        # Padding stands to the right of every token, so the causal mask hides it.
        mixed = mix(q, k, v, None if triangle else rectangle.mask, triangle, dropout)
        out.append(mixed.transpose(1, 2).flatten(2))
    return asks.unpack(out)


def mix(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    triangle: bool,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Return each query's weighted mean of the values, (n, H, L, E).

    Args:
        q: (n, H, L, E).
        k: (n, H, M, E).
        v: (n, H, M, E).
        mask: Bool, true where a query sees a key, and broadcastable to (n, H, L, M).
        triangle: Whether a query sees only keys up to its own place; then there is no mask, and M is L.
        dropout: Share of weights dropped.
        scale: Factor of the products; E**-0.5 if not given.
    """
    if not dropout or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, triangle, scale=scale)
    # With dropout PyTorch has no fused form on a CPU; this one draws its mask more cheaply.
    n, H, L, E = q.shape
    factor = E**-0.5 if scale is None else scale
    q, k, v = (x.reshape(n * H, -1, E) for x in (q, k, v))
    if triangle:
        scores = torch.baddbmm(_triangle(L), q, k.transpose(1, 2), alpha=factor)
    else:
        scores = torch.bmm(q, k.transpose(1, 2)) * factor
        if mask is not None:
            scores = scores.view(n, H, L, -1).masked_fill(~mask, -torch.inf).view(n * H, L, -1)
    return torch.bmm(drop_weights(scores.softmax(-1), dropout), v).view(n, H, L, E)


def repeat_heads(x: Tensor, heads: int) -> Tensor:
    """Return (n, H, L, E) keys or values from (n, G, L, E): each of G heads serves H / G heads of queries."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


@lru_cache(maxsize=64)
def _triangle(length: int) -> Tensor:
    """Return (L, L): 0 where a token is seen, -inf where it comes later."""
    return torch.full((length, length), -torch.inf).triu_(1)
