"""One vector per sequence from the vectors of its tokens. Shapes: T tokens, B sequences, D width."""

from collections.abc import Callable

import torch
from torch import Tensor

from seqrec.nn.ragged import Plan
from seqrec.text.options import Pooling, TextPooling


def pool_tokens(tokens: Tensor, plan: Plan, pooling: Pooling) -> Tensor:
    """Return (B, D) in the order of the plan from its (T, D) tokens."""
    if pooling == "cls":
        return tokens.index_select(0, plan.first)
    sums = [part.sum(1) for part in plan.layout.pack(tokens)]  # padding is zero
    return torch.cat(sums) / plan.lengths[:, None]


def pool_texts(
    states: Tensor,
    plan: Plan,
    pooling: TextPooling,
    pooler: Callable[[Tensor], Tensor] | None = None,
    num_queries: int = 0,
) -> Tensor:
    """Return (B, D) in the order of the plan, (B, 2 D) for `mean_last`.

    Args:
        states: (T, D) in the order of the plan.
        plan: Of the batch.
        pooling: Method.
        pooler: Maps the (B, D) states of first tokens to (B, D).
        num_queries: Tokens at the end of every text that are no text; the mean leaves them out.
    """
    if pooling in ("cls", "pooler"):
        first = pool_tokens(states, plan, "cls")
        return pooler(first) if pooling == "pooler" and pooler is not None else first
    last = states.index_select(0, plan.first + plan.lengths - 1)
    if pooling == "last":
        return last
    mean = _mean_of_text(states, plan, num_queries)
    return mean if pooling == "mean" else torch.cat([mean, last], dim=1)


def _mean_of_text(states: Tensor, plan: Plan, num_queries: int) -> Tensor:
    if not num_queries:
        return pool_tokens(states, plan, "mean")
    lengths = plan.lengths - num_queries
    is_text = plan.positions < lengths.repeat_interleave(plan.lengths)
    return pool_tokens(states * is_text[:, None], plan, "mean") * (plan.lengths / lengths)[:, None]
