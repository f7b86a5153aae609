"""HSTU's attention: SiLU in place of the softmax, block by block, so that no (queries x keys) matrix is kept.

out_i = sum over the keys j <= i of SiLU(q_i . k_j + position_bias[p_i - p_j] + time_bias[b_ij]) v_j / normaliser

Shapes: n sequences of one rectangle, L queries and M keys of each, H heads, E width of a head, C = M - L keys before
the first query, S distances that have a bias, 129 buckets of time.
Source: Zhai et al. (2024), section 3.2, https://arxiv.org/abs/2402.17152.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CACHED_ELEMENTS = 1 << 18
"""Products in memory at one time on a CPU: 1 MiB of float32, which its caches hold."""
GPU_ELEMENTS = 1 << 26
"""The same on a GPU."""
ROWS = 128
"""Most queries of a block: keys after its last are not touched."""
NUM_BUCKETS = 128
"""Of times between events; one more for what lies beyond."""
_BUCKET = 0.301
"""Width of a bucket in natural logarithms of seconds."""


class Bias(NamedTuple):
    """Learned terms of the products, by the distance of two events in places and in time, shared by the heads."""

    position: Tensor
    """(S,)."""
    distances: Tensor | None
    """(n, L, C) int64 distances from the queries to the C first keys; the others are neighbours, one place apart."""
    time: Tensor | None
    """(NUM_BUCKETS + 1,)."""
    buckets: Tensor | None
    """(n, L, M) uint8."""


def time_buckets(queries: Tensor, keys: Tensor) -> Tensor:
    """Return the buckets of the times between events, (n, L, M) uint8, from their (n, L) and (n, M) seconds."""
    apart = (queries[:, :, None] - keys[:, None, :]).abs_().clamp_(min=1).float()
    return apart.log_().div_(_BUCKET).clamp_(max=NUM_BUCKETS).to(torch.uint8)


def pointwise_attention(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool, normaliser: float, bias: Bias | None = None
) -> Tensor:
    """Return the attention of one rectangle, (n, L, H, E).

    Args:
        query: (n, L, H, E).
        key: (n, M, H, E).
        value: (n, M, H, E), zero where there is no event.
        causal: Whether query i sees the keys up to C + i, otherwise all.
        normaliser: What the sum is divided by.
        bias: Added to the products.
    """
    position = time = distances = buckets = None
    if bias is not None:
        position, distances, time, buckets = bias
    if torch.compiler.is_exporting():
        return _at_once(query, key, value, position, normaliser)
    out: Tensor = _Pointwise.apply(query, key, value, position, time, distances, buckets, causal, normaliser)
    return out


def _at_once(query: Tensor, key: Tensor, value: Tensor, position: Tensor | None, normaliser: float) -> Tensor:
    """Return causal attention of L queries to as many keys as a graph has it that is exported, without blocks."""
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    products = q @ k.transpose(2, 3)
    if position is not None:
        own = torch.arange(query.shape[1])
        products = products + position[(own[:, None] - own).clamp(min=0)]
    return (F.silu(products).tril() @ v).transpose(1, 2) / normaliser


def _blocks(query: Tensor, key: Tensor, causal: bool) -> list[tuple[slice, slice, slice]]:
    """Return blocks as sequences, queries and keys that these see."""
    n, L, H, _ = query.shape
    M = key.shape[1]
    limit = CACHED_ELEMENTS if query.device.type == "cpu" else GPU_ELEMENTS
    found = []
    for first in range(0, L, ROWS) if causal else (0,):
        rows = slice(first, min(first + ROWS, L) if causal else L)
        columns = slice(0, M - L + rows.stop if causal else M)
        step = max(1, limit // (H * (rows.stop - rows.start) * columns.stop))
        found += [(slice(start, min(start + step, n)), rows, columns) for start in range(0, n, step)]
    return found


class _Pointwise(torch.autograd.Function):
    """Keeps its inputs alone; the products are computed again for the gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        position: Tensor | None,
        time: Tensor | None,
        distances: Tensor | None,
        buckets: Tensor | None,
        causal: bool,
        normaliser: float,
    ) -> Tensor:
        q, k, v = (x.detach().transpose(1, 2) for x in (query, key, value))  # (n, H, L or M, E)
        toeplitz = None if position is None else _by_distance(position.detach(), query.shape[1])
        out = torch.empty_like(query)
        for s, rows, columns in _blocks(query, key, causal):
            products = _products(q, k, (s, rows, columns), position, time, toeplitz, distances, buckets)
            weights = F.silu(products, inplace=True)
            if causal:
                weights = weights.tril_(columns.stop - (rows.stop - rows.start))
            out[s, rows] = (weights @ v[s, :, columns]).transpose(1, 2)
        ctx.save_for_backward(query, key, value, position, time, distances, buckets)
        ctx.causal, ctx.normaliser = causal, normaliser
        return out.div_(normaliser)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, position, time, distances, buckets = ctx.saved_tensors
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        upstream = grad_outputs[0].div(ctx.normaliser).transpose(1, 2)
        L, C = query.shape[1], key.shape[1] - query.shape[1]
        toeplitz = None if position is None else _by_distance(position, L)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        square = None if position is None else position.new_zeros(L, L)
        d_position = None if position is None else torch.zeros_like(position)
        d_time = None if time is None else torch.zeros_like(time)
        for s, rows, columns in _blocks(query, key, ctx.causal):
            products = _products(q, k, (s, rows, columns), position, time, toeplitz, distances, buckets)
            g = upstream[s, :, rows]
            d_weights = g @ v[s, :, columns].transpose(2, 3)
            slopes = torch.ops.aten.silu_backward(d_weights, products)
            weights = F.silu(products, inplace=True)
            if ctx.causal:
                diagonal = columns.stop - (rows.stop - rows.start)
                weights, slopes = weights.tril_(diagonal), slopes.tril_(diagonal)
            dv[s, :, columns] += weights.transpose(2, 3) @ g
            dq[s, :, rows] = slopes @ k[s, :, columns]
            dk[s, :, columns] += slopes.transpose(2, 3) @ q[s, :, rows]
            if square is None or d_position is None:
                continue
            by_pair = slopes.sum(1, dtype=square.dtype)
            square[rows, : columns.stop - C] += by_pair[:, :, C:].sum(0)
            if distances is not None:
                d_position.index_add_(0, distances[s, rows].flatten(), by_pair[:, :, :C].flatten())
            if d_time is not None and buckets is not None:
                which = buckets[s, rows, columns].flatten().int()
                d_time += torch.bincount(which, by_pair.flatten(), minlength=NUM_BUCKETS + 1)
        if square is not None and d_position is not None:
            own = torch.arange(L, device=square.device)
            d_position.index_add_(0, (own[:, None] - own).clamp_(min=0).flatten(), square.tril_().flatten())
        grads = (x.transpose(1, 2) for x in (dq, dk, dv))
        return (*grads, d_position, d_time, None, None, None, None)


def _by_distance(position: Tensor, length: int) -> Tensor:
    """Return the (L, L) biases of neighbouring events, zero after the query."""
    line = torch.cat([position[:length].flip(0), position.new_zeros(length - 1)])  # row i is all from length - 1 - i on
    return line.unfold(0, length, 1).flip(0)


def _products(
    q: Tensor,
    k: Tensor,
    block: tuple[slice, slice, slice],
    position: Tensor | None,
    time: Tensor | None,
    toeplitz: Tensor | None,
    distances: Tensor | None,
    buckets: Tensor | None,
) -> Tensor:
    """Return a block's (., H, ., .) products with their biases."""
    s, rows, columns = block
    products = q[s, :, rows] @ k[s, :, columns].transpose(2, 3)
    if position is None or toeplitz is None:
        return products
    C = k.shape[2] - toeplitz.shape[1]
    products[..., C:] += toeplitz[rows, : columns.stop - C]
    if distances is not None:
        products[..., :C] += position[distances[s, rows]][:, None]
    if time is not None and buckets is not None:
        products += time[buckets[s, rows, columns].int()][:, None]
    return products
