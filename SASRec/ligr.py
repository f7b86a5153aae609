"""A block with norms before, and gates after, attention and feed-forward network. Shapes: B users, T events, D width.

Source: LiGR (Borisyuk et al., 2025, https://arxiv.org/abs/2502.03417), as eSASRec (2025) has it in SASRec,
https://arxiv.org/abs/2508.06450.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.dropout import Dropout
from seqrec.layers import AttentionBlock, Turns
from seqrec.ragged import Layout


class LigrBlock(AttentionBlock):
    """x + sigmoid(W x) * attention(norm(x)), then the same with a SwiGLU network in place of the attention."""

    def __init__(self, width: int, num_heads: int, dropout_rate: float) -> None:
        super().__init__(width, num_heads, dropout_rate)
        self.attention_norm = nn.LayerNorm(width)
        self.attention_gate = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward_in = nn.Linear(width, 8 * width, bias=False)  # both halves of the SwiGLU, 4 D each
        self.feed_forward_out = nn.Linear(4 * width, width, bias=False)
        self.feed_forward_gate = nn.Linear(width, width)
        self.dropout = Dropout(dropout_rate)

    def forward(self, x: Tensor, layout: Layout, last: Layout | None = None, turns: Turns | None = None) -> Tensor:
        """Return (T, D), or (B, D) where `last` asks for the last event of each history alone."""
        events = asked = self.attention_norm(x)
        if last is not None:
            x, asked = x[layout.last], events[layout.last]
        mixed = self.attention(asked, events, layout, last, causal=True, turns=turns)
        x = x + self.attention_gate(x).sigmoid() * self.dropout(mixed)
        gate, inner = self.feed_forward_in(self.feed_forward_norm(x)).chunk(2, dim=1)
        out: Tensor = x + self.feed_forward_gate(x).sigmoid() * self.dropout(
            self.feed_forward_out(self.dropout(F.silu(gate) * inner))
        )
        return out
