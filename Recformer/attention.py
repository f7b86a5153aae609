"""Sliding-window attention with one global token per sequence, over ragged batches.

What a Longformer computes with its first token global, exactly: every token attends to the tokens at most
`reach` positions away and to the first token, through the local projections; the first token attends to all
tokens of its sequence, through the global projections. No score is computed for two tokens that are both
further apart and not on the same short stretch, and none for padding.

Shapes: T tokens, B sequences, D width, H heads, E = D / H; a rectangle has b sequences of at most L tokens.
Source: Beltagy et al. (2020), section 3, https://arxiv.org/abs/2004.05150.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.nn.dropout import dropout
from seqrec.nn.ragged import Plan, Rectangle

BLOCK = 64  # queries per block of the block-local form
DENSE_LENGTH = 256  # up to here one masked (L, L) product is at least as fast as blocks


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
    for rectangle, *parts in _rectangles(plan, query, key, value):
        q, k, v = (part.transpose(1, 2) for part in parts)  # (b, H, L, E)
        if rectangle.shape[1] <= DENSE_LENGTH:
            out = _weigh(q, k, v, _band_mask(plan, rectangle, reach), drop)
        else:
            out = _blocked_attention(q, k, v, plan, rectangle, reach, drop)
        pieces.append(out.transpose(1, 2))  # (b, L, H, E)
    return plan.layout.unpack(pieces).flatten(1)


def attend_freely(query: Tensor, key: Tensor, value: Tensor, plan: Plan, reach: int | None, drop: float) -> Tensor:
    """Return what each token reads from the tokens at most `reach` away, from all where it is None, (T, H * E).

    Arguments are those of `attend_locally`; the first token is one like any other.
    """
    pieces = []
    for rectangle, *parts in _rectangles(plan, query, key, value):
        q, k, v = (part.transpose(1, 2) for part in parts)  # (b, H, L, E)
        length, closed = rectangle.shape[1], None
        at = torch.arange(length, device=q.device)
        if reach is not None and length > reach + 1:
            closed = (at[:, None] - at).abs() > reach
        if rectangle.mask is not None:
            # A query in padding sees itself: one that sees nothing has no softmax, and its gradient would be NaN.
            padding = ~rectangle.mask & (at[:, None] != at)
            closed = padding if closed is None else closed | padding
        mask = None if closed is None else _closed(closed)
        pieces.append(_weigh(q, k, v, mask, drop).transpose(1, 2))
    return plan.layout.unpack(pieces).flatten(1)


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
    counts = [rectangle.shape[0] for rectangle in plan.layout.rectangles]
    parts = zip(_rectangles(plan, hidden), torch.split(probe, counts), torch.split(bias, counts), strict=True)
    for (rectangle, x), u, c in parts:  # x: (b, L, D)
        scores = torch.baddbmm(c[:, :, None], u, x.transpose(1, 2))  # (b, H, L)
        if rectangle.mask is not None:
            scores = scores.masked_fill(~rectangle.mask[:, 0], -torch.inf)
        weights = dropout(scores.softmax(-1, dtype=torch.float32), drop)
        sums.append(weights.to(x.dtype) @ x)
        masses.append(weights.sum(-1))
    return torch.cat(sums), torch.cat(masses)


def _rectangles(plan: Plan, *flats: Tensor) -> Iterator[tuple[Any, ...]]:
    """Return each rectangle with its (b, L, ...) tokens of (T, ...) tensors."""
    return zip(plan.layout.rectangles, *map(plan.layout.pack, flats), strict=True)


def _weigh(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, drop: float) -> Tensor:
    """Return the softmax-weighted values, (..., L, E), of queries (..., L, E) and keys (..., K, E)."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, mask, drop)
    if drop == 0:
        if torch.is_grad_enabled() and q.dtype == torch.bfloat16:
            # The fused kernel's backward pass takes several times as long in bfloat16.
            with torch.autocast("cpu", enabled=False):
                return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), mask).to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, mask)
    # PyTorch's fused CPU kernel has no dropout; its fallback also checks every row for being closed throughout.
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    return dropout(scores.softmax(-1), drop) @ v


def _closed(where: Tensor) -> Tensor:
    """Return float32 zeros with -inf where a bool tensor is true."""
    return torch.zeros(where.shape, device=where.device).masked_fill_(where, -torch.inf)


def _band_mask(plan: Plan, rectangle: Rectangle, reach: int) -> Tensor | None:
    """Return the mask of a dense product: (L, L), (b, 1, L, L) with padding, None if all is seen."""
    length = rectangle.shape[1]
    if rectangle.mask is None and length <= reach + 1:
        return None
    mask = plan.masks.get((length, reach))
    if mask is None:
        at = torch.arange(length, device=plan.positions.device)
        mask = _closed(((at[:, None] - at).abs() > reach) & (at > 0))
        plan.masks[length, reach] = mask
    return mask if rectangle.mask is None else mask + _closed(~rectangle.mask)


def _blocked_attention(
    q: Tensor, k: Tensor, v: Tensor, plan: Plan, rectangle: Rectangle, reach: int, drop: float
) -> Tensor:
    """Return the (b, H, L, E) attention of a long rectangle: blocks of queries read the keys around them."""
    b, H, L, E = q.shape
    blocks = -(-L // BLOCK)
    width = BLOCK + 2 * reach
    right = blocks * BLOCK - L
    q = F.pad(q, (0, 0, 0, right)).view(b, H, blocks, BLOCK, E)

    def neighbourhood(x: Tensor) -> Tensor:
        first = x[:, :, None, :1].expand(b, H, blocks, 1, E)
        around = F.pad(x, (0, 0, reach, right + reach)).unfold(2, width, BLOCK).transpose(-1, -2)
        return torch.cat([first, around], dim=3).transpose(1, 2).flatten(0, 1)  # (b * blocks, H, 1 + width, E)

    mask = _block_mask(plan, rectangle, reach)
    q = q.transpose(1, 2).flatten(0, 1)  # (b * blocks, H, BLOCK, E)
    out = _weigh(q, neighbourhood(k), neighbourhood(v), mask, drop)
    return out.view(b, blocks, H, BLOCK, E).transpose(1, 2).reshape(b, H, blocks * BLOCK, E)[:, :, :L]


def _block_mask(plan: Plan, rectangle: Rectangle, reach: int) -> Tensor:
    """Return (b * blocks, 1, BLOCK, 1 + BLOCK + 2 * reach): the first token, then the band around."""
    count, L = rectangle.shape
    blocks = -(-L // BLOCK)
    mask = plan.masks.get((L, reach))
    if mask is None:
        q_at = torch.arange(blocks * BLOCK, device=plan.positions.device).view(blocks, BLOCK, 1)
        k_at = torch.arange(-reach, BLOCK + reach, device=plan.positions.device) + q_at[:, :1]  # (blocks, 1, width)
        band = ((q_at - k_at).abs() <= reach) & (k_at > 0) & (k_at < L)
        mask = _closed(F.pad(~band, (1, 0), value=False))[:, None]
        plan.masks[L, reach] = mask
    mask = mask.expand(count, *mask.shape)
    if rectangle.mask is not None:
        right = blocks * BLOCK - L
        around = F.pad(rectangle.mask[:, 0, 0], (reach, right + reach)).unfold(1, BLOCK + 2 * reach, BLOCK)
        mask = mask + _closed(F.pad(~around, (1, 0), value=False))[:, :, None, None, :]
    return mask.flatten(0, 1)
