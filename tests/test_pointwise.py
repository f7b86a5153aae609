"""HSTU's attention: equal to its equation, with gradients, in several blocks, with every kind of bias."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.nn import pointwise
from seqrec.nn.pointwise import NUM_BUCKETS, Bias, pointwise_attention, time_buckets


def by_the_equation(q: Tensor, k: Tensor, v: Tensor, causal: bool, normaliser: float, bias: Bias | None) -> Tensor:
    """Return (n, L, H, E) from whole matrices."""
    (n, L), M = q.shape[:2], k.shape[1]
    scores = torch.einsum("nlhe,nmhe->nhlm", q, k)
    if bias is not None:
        own = torch.arange(L)
        distances = torch.zeros(n, L, M, dtype=torch.int64)
        distances[:, :, M - L :] = (own[:, None] - own).clamp(min=0)
        if bias.distances is not None:
            distances[:, :, : M - L] = bias.distances
        scores = scores + bias.position[distances][:, None]
        if bias.time is not None and bias.buckets is not None:
            scores = scores + bias.time[bias.buckets.long()][:, None]
    weights = F.silu(scores)
    if causal:
        weights = weights * torch.ones(L, M).tril(M - L)
    return torch.einsum("nhlm,nmhe->nlhe", weights, v) / normaliser


@pytest.mark.parametrize("kind", ["none", "position", "both"])
@pytest.mark.parametrize(
    ("queries", "before", "causal"), [(5, 0, True), (1, 7, False), (11, 3, True)], ids=["square", "newest", "tokens"]
)
@pytest.mark.parametrize("rows", [4, 128])
def test_it_is_the_equation(
    queries: int, before: int, causal: bool, kind: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pointwise, "ROWS", rows)
    monkeypatch.setattr(pointwise, "CACHED_ELEMENTS", 100)  # so that sequences are split, too
    torch.manual_seed(0)
    n, H, E, M = 3, 2, 4, queries + before
    q, k, v = (torch.randn(n, length, H, E, dtype=torch.float64, requires_grad=True) for length in (queries, M, M))
    position, time = (torch.randn(size, dtype=torch.float64, requires_grad=True) for size in (20, NUM_BUCKETS + 1))
    bias = None
    learned = [q, k, v]
    if kind != "none":
        distances = torch.randint(0, 20, (n, queries, before)) if before else None
        bias, learned = Bias(position, distances, None, None), [*learned, position]
        if kind == "both":
            buckets = torch.randint(0, NUM_BUCKETS + 1, (n, queries, M), dtype=torch.uint8)
            bias, learned = Bias(position, distances, time, buckets), [*learned, time]
    found = pointwise_attention(q, k, v, causal=causal, normaliser=7.0, bias=bias)
    expected = by_the_equation(q, k, v, causal, 7.0, bias)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    gradients = [torch.autograd.grad((out * upstream).sum(), learned) for out in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_buckets_are_logarithms_of_seconds() -> None:
    found = time_buckets(torch.tensor([[100, 100, 100]]), torch.tensor([[100, 99, 90, 0, 10**12]]))
    # ln 1 = 0, ln 10 / 0.301 = 7.6, ln 100 / 0.301 = 15.3, ln 10^12 / 0.301 = 91.8; before or after is the same.
    assert found[0].tolist() == [[0, 0, 7, 15, 91]] * 3
