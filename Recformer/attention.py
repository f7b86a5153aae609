"""Sliding-window attention with one global token per sequence, over ragged batches.

What a Longformer computes with its first token global, exactly: every token attends to the tokens at most
`reach` positions away and to the first token, through the local projections; the first token attends to all
tokens of its sequence, through the global projections. No score is computed for two tokens that are both
further apart and not on the same short stretch, and none for padding.

Sequences are sorted by length. Those of one length lie side by side, so a group of them is a view (b, L, ...)
of the flat tokens, without padding or copies; that is the plan on a CPU, where a kernel's launch costs nothing.
A GPU prefers few large kernels: there lengths are rounded up, and a group is padded.

Shapes: T tokens, B sequences, D width, H heads, E = D / H; a group has b sequences of L tokens.
Source: Beltagy et al. (2020), section 3, https://arxiv.org/abs/2004.05150.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.nn.dropout import dropout
from seqrec.nn.rotation import Rotation

BLOCK = 64  # queries per block of the block-local form
DENSE_LENGTH = 256  # up to here one masked (L, L) product is at least as fast as blocks
CPU_GRANULARITY, GPU_GRANULARITY = 1, 64  # lengths are rounded up to a multiple; 1 pads nothing


@dataclass(frozen=True, slots=True)
class Group:
    """b neighbouring sequences as a rectangle (b, L)."""

    count: int
    """b."""
    length: int
    """L, the longest of the b sequences."""
    tokens: int
    """Rows of the flat tokens, at most b * L."""
    rows: Tensor | None
    """(b * L,) int64 row of each cell within the group, 0 in padding; None where nothing is padded."""
    cells: Tensor | None
    """(tokens,) int64 cell of each row; None where nothing is padded."""
    real: Tensor | None
    """(b, L) bool, False in padding; None where nothing is padded."""

    def rectangle(self, flat: Tensor) -> Tensor:
        """Return (b, L, ...) from the group's own (tokens, ...)."""
        filled = flat if self.rows is None else flat.index_select(0, self.rows)
        return filled.view(self.count, self.length, *flat.shape[1:])

    def flatten(self, rectangle: Tensor) -> Tensor:
        """Return the group's (tokens, ...) from (b, L, ...)."""
        flat = rectangle.flatten(0, 1)
        return flat if self.cells is None else flat.index_select(0, self.cells)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one batch is laid out in the encoder: computed once, read by every layer."""

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
    groups: tuple[Group, ...]
    masks: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """What is added to scores, by (length, reach): 0 or -inf; filled when first needed."""
    rotations: dict[float, Rotation] = field(default_factory=dict)
    """Rotations by position, by base; filled when first needed."""

    def rotation(self, theta: float, width: int) -> Rotation:
        """Return what each row's heads of that width are turned by at its position."""
        if theta not in self.rotations:
            planes = torch.arange(0, width, 2, dtype=torch.float32, device=self.positions.device)
            angles = self.positions[:, None] * theta ** (-planes / width)
            self.rotations[theta] = Rotation(angles.cos(), angles.sin())
        return self.rotations[theta]

    def split(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Return each group's rows of a (T, ...) tensor."""
        return torch.split(flat, [group.tokens for group in self.groups])


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
    rounded = (sorted_lengths + granularity - 1) // granularity
    groups, at = [], 0
    for _, members in groupby(rounded.tolist()):
        count = len(list(members))
        groups.append(_make_group(sorted_lengths[at : at + count], device))
        at += count
    on_device = partial(torch.Tensor.to, device=device, non_blocking=True)
    return Plan(
        order=on_device(order),
        token_order=on_device(token_order),
        positions=on_device(positions),
        first=on_device(first),
        lengths=on_device(sorted_lengths),
        groups=tuple(groups),
    )


def attend_locally(query: Tensor, key: Tensor, value: Tensor, plan: Plan, reach: int, drop: float) -> Tensor:
    """Return what each token reads from its neighbours and from its sequence's first token.

    Args:
        query: (T, H, E), as are `key` and `value`; local projections.
        key: See `query`.
        value: See `query`.
        plan: Layout of the batch.
        reach: Furthest distance between two tokens that see each other.
        drop: Probability that a weight is dropped.

    Returns:
        (T, H * E). The rows of first tokens are to be replaced by `attend_globally`.
    """
    pieces = []
    for group, parts in _by_group(plan, query, key, value):
        q, k, v = (part.transpose(1, 2) for part in parts)  # (b, H, L, E)
        if group.length <= DENSE_LENGTH:
            out = _weigh(q, k, v, _band_mask(plan, group, reach, q.device), drop)
        else:
            out = _blocked_attention(q, k, v, plan, group, reach, drop)
        pieces.append(group.flatten(out.transpose(1, 2)))  # (tokens, H, E)
    return torch.cat(pieces).flatten(1)


def attend_freely(query: Tensor, key: Tensor, value: Tensor, plan: Plan, reach: int | None, drop: float) -> Tensor:
    """Return what each token reads from the tokens at most `reach` away, from all where it is None, (T, H * E).

    Arguments are those of `attend_locally`; the first token is one like any other.
    """
    pieces = []
    for group, parts in _by_group(plan, query, key, value):
        q, k, v = (part.transpose(1, 2) for part in parts)  # (b, H, L, E)
        mask = None
        if reach is not None and group.length > reach + 1:
            at = torch.arange(group.length, device=q.device)
            mask = _closed((at[:, None] - at).abs() > reach)
        if group.real is not None:
            padding = _closed(~group.real)[:, None, None, :]
            mask = padding if mask is None else mask + padding
        pieces.append(group.flatten(_weigh(q, k, v, mask, drop).transpose(1, 2)))
    return torch.cat(pieces).flatten(1)


def attend_globally(hidden: Tensor, probe: Tensor, bias: Tensor, plan: Plan, drop: float) -> tuple[Tensor, Tensor]:
    """Return what the first token of each sequence reads from all of its tokens, before the value projection.

    One query per sequence reads the keys, so the key projection is applied to the query instead of to all
    tokens, q · (W x + b) = (Wᵀ q) · x + q · b, and the value projection to the weighted sum: two of the six
    projections of a layer, over all tokens, become products with H columns.

    Args:
        hidden: (T, D) input of the layer.
        probe: (B, H, D) queries pulled back through the key projection, scaled.
        bias: (B, H) their products with the key bias, scaled.
        plan: Layout of the batch.
        drop: Probability that a weight is dropped.

    Returns:
        (B, H, D) weighted sums of `hidden`, and (B, H) the sums of the weights, 1 without dropout.
    """
    sums, masses = [], []
    counts = [group.count for group in plan.groups]
    per_group = zip(_by_group(plan, hidden), torch.split(probe, counts), torch.split(bias, counts), strict=True)
    for (group, (x,)), u, c in per_group:  # x: (b, L, D)
        scores = torch.baddbmm(c[:, :, None], u, x.transpose(1, 2))  # (b, H, L)
        if group.real is not None:
            scores = scores.masked_fill(~group.real[:, None], -torch.inf)
        weights = dropout(scores.softmax(-1, dtype=torch.float32), drop)
        sums.append(weights.to(x.dtype) @ x)
        masses.append(weights.sum(-1))
    return torch.cat(sums), torch.cat(masses)


def average_tokens(hidden: Tensor, plan: Plan) -> Tensor:
    """Return (B, D), the mean of each sequence's rows of the (T, D) `hidden`."""
    sums = []
    for group, (x,) in _by_group(plan, hidden):
        sums.append((x if group.real is None else x * group.real[:, :, None]).sum(1))
    return torch.cat(sums) / plan.lengths[:, None]


def _by_group(plan: Plan, *flats: Tensor) -> Iterator[tuple[Group, tuple[Tensor, ...]]]:
    """Yield each group with its rows of the (T, ...) tensors, laid out as (b, L, ...)."""
    # Split, never sliced: the backward of a slice writes a full-size gradient for every group.
    for group, parts in zip(plan.groups, zip(*map(plan.split, flats), strict=True), strict=True):
        yield group, tuple(map(group.rectangle, parts))


def _make_group(lengths: Tensor, device: torch.device) -> Group:
    """Return the group of some neighbouring sequences, from their (b,) ascending lengths."""
    count, length, tokens = len(lengths), int(lengths[-1]), int(lengths.sum())
    if count * length == tokens:
        return Group(count, length, tokens, None, None, None)
    real = torch.arange(length) < lengths[:, None]
    cells = real.flatten().nonzero().flatten()
    rows = torch.zeros(count * length, dtype=torch.int64)
    rows[cells] = torch.arange(tokens)
    return Group(count, length, tokens, rows.to(device), cells.to(device), real.to(device))


def _weigh(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, drop: float) -> Tensor:
    """Return the softmax-weighted values, (..., L, E), of queries (..., L, E) and keys (..., K, E)."""
    if drop == 0 or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, mask, drop)
    # PyTorch's fused CPU kernel has no dropout; its fallback also checks every row for being closed throughout.
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    return dropout(scores.softmax(-1), drop) @ v


def _closed(where: Tensor) -> Tensor:
    """Return float32 zeros with -inf where a bool tensor is true."""
    return torch.zeros(where.shape, device=where.device).masked_fill_(where, -torch.inf)


def _band_mask(plan: Plan, group: Group, reach: int, device: torch.device) -> Tensor | None:
    """Return the mask of a dense product: (L, L), (b, 1, L, L) with padding, None if all is seen."""
    if group.real is None and group.length <= reach + 1:
        return None
    mask = plan.masks.get((group.length, reach))
    if mask is None:
        at = torch.arange(group.length, device=device)
        mask = _closed(((at[:, None] - at).abs() > reach) & (at > 0))
        plan.masks[group.length, reach] = mask
    return mask if group.real is None else mask + _closed(~group.real)[:, None, None, :]


def _blocked_attention(q: Tensor, k: Tensor, v: Tensor, plan: Plan, group: Group, reach: int, drop: float) -> Tensor:
    """Return the (b, H, L, E) attention of a long group: blocks of queries read the keys around them."""
    b, H, L, E = q.shape
    blocks = -(-L // BLOCK)
    width = BLOCK + 2 * reach
    right = blocks * BLOCK - L
    q = F.pad(q, (0, 0, 0, right)).view(b, H, blocks, BLOCK, E)

    def neighbourhood(x: Tensor) -> Tensor:
        first = x[:, :, None, :1].expand(b, H, blocks, 1, E)
        around = F.pad(x, (0, 0, reach, right + reach)).unfold(2, width, BLOCK).transpose(-1, -2)
        return torch.cat([first, around], dim=3).transpose(1, 2).flatten(0, 1)  # (b * blocks, H, 1 + width, E)

    mask = _block_mask(plan, group, reach, q.device)
    q = q.transpose(1, 2).flatten(0, 1)  # (b * blocks, H, BLOCK, E)
    out = _weigh(q, neighbourhood(k), neighbourhood(v), mask, drop)
    return out.view(b, blocks, H, BLOCK, E).transpose(1, 2).reshape(b, H, blocks * BLOCK, E)[:, :, :L]


def _block_mask(plan: Plan, group: Group, reach: int, device: torch.device) -> Tensor:
    """Return (b * blocks, 1, BLOCK, 1 + BLOCK + 2 * reach): the first token, then the band around."""
    L = group.length
    blocks = -(-L // BLOCK)
    mask = plan.masks.get((L, reach))
    if mask is None:
        q_at = torch.arange(blocks * BLOCK, device=device).view(blocks, BLOCK, 1)
        k_at = torch.arange(-reach, BLOCK + reach, device=device) + q_at[:, :1]  # (blocks, 1, width)
        band = ((q_at - k_at).abs() <= reach) & (k_at > 0) & (k_at < L)
        mask = _closed(F.pad(~band, (1, 0), value=False))[:, None]
        plan.masks[L, reach] = mask
    mask = mask.expand(group.count, *mask.shape)
    if group.real is not None:
        right = blocks * BLOCK - L
        around = F.pad(group.real, (reach, right + reach)).unfold(1, BLOCK + 2 * reach, BLOCK)
        mask = mask + _closed(F.pad(~around, (1, 0), value=False))[:, :, None, None, :]
    return mask.flatten(0, 1)
