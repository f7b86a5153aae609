"""One vector per sequence from the vectors of its tokens. Shapes: T tokens, B sequences, D width."""

import torch
from torch import Tensor

from seqrec.nn.ragged import Plan
from seqrec.text.options import Pooling


def pool_tokens(tokens: Tensor, plan: Plan, pooling: Pooling) -> Tensor:
    """Return (B, D) in the order of the plan from its (T, D) tokens."""
    if pooling == "cls":
        return tokens.index_select(0, plan.first)
    sums = [part.sum(1) for part in plan.layout.pack(tokens)]  # padding is zero
    return torch.cat(sums) / plan.lengths[:, None]
