"""One vector per sequence from the vectors of its tokens. Shapes: T tokens, B sequences, D width."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.nn.ragged import Plan
from seqrec.text.options import Pooling, TextPooling


def pool_tokens(
    tokens: Tensor, plan: Plan, pooling: Pooling, items: Tensor | None = None, decay: float = 0.5
) -> Tensor:
    """Return (B, D) in the order of the plan from its (T, D) tokens.

    Args:
        tokens: In the order of the plan.
        plan: Of the batch.
        pooling: Method.
        items: (T,) int item positions, which `recency` needs: 0 for the class token, 1 for the most recent item.
        decay: Of `recency`, what an item weighs beside the next.
    """
    if pooling == "cls":
        return tokens.index_select(0, plan.first)
    if pooling == "recency":
        assert items is not None
        weights = recency_weights(items, plan, decay)[:, None].to(tokens.dtype)
        return torch.cat([part.sum(1) for part in plan.layout.pack(tokens * weights)])
    sums = [part.sum(1) for part in plan.layout.pack(tokens)]  # padding is zero
    return torch.cat(sums) / plan.lengths[:, None]


def pool_items(vectors: Tensor, owner: Tensor, place: Tensor, num_histories: int, decay: float = 0.5) -> Tensor:
    """Return the (B, D) sums of the normalised vectors of a history's items, recent ones weighing more.

    Args:
        vectors: (M, D) items.
        owner: (M,) int64 history of each.
        place: (M,) int64, 0 for the most recent.
        num_histories: B.
        decay: What an item weighs beside the next.
    """
    weighted = F.normalize(vectors.float(), dim=1) * (decay**place)[:, None]
    return weighted.new_zeros(num_histories, vectors.shape[1]).index_add(0, owner, weighted)


def recency_weights(items: Tensor, plan: Plan, decay: float) -> Tensor:
    """Return (T,) weights that sum to 1 in each sequence: an item's tokens share `decay` of what the next one's do.

    The class token counts as one of the most recent item's, so that a single item has the mean of its tokens.
    """
    place = items.long().clamp(min=1) - 1
    sequence = torch.arange(len(plan.lengths), device=items.device).repeat_interleave(plan.lengths)
    group = sequence * (int(place.max()) + 1) + place
    weights = decay**place / group.bincount()[group]
    total = torch.zeros(len(plan.lengths), device=items.device).index_add_(0, sequence, weights)
    return weights / total[sequence]


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
