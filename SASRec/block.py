"""The block of the original SASRec. Shapes: B users, T events of all, D width.

Source: Kang & McAuley (2018), section III, https://doi.org/10.1109/ICDM.2018.00035.
"""

from torch import Tensor, nn

from seqrec.dropout import Dropout
from seqrec.layers import AttentionBlock, Turns
from seqrec.ragged import Layout


class Block(AttentionBlock):
    """Causal self-attention, then a point-wise feed-forward network. The residual of attention is the normed query."""

    def __init__(self, width: int, num_heads: int, dropout_rate: float) -> None:
        super().__init__(width, num_heads, dropout_rate)
        self.attention_norm = nn.LayerNorm(width, eps=1e-8)
        self.feed_forward_norm = nn.LayerNorm(width, eps=1e-8)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, width),
            Dropout(dropout_rate),
            nn.ReLU(),
            nn.Linear(width, width),
            Dropout(dropout_rate),
        )

    def forward(self, x: Tensor, layout: Layout, last: Layout | None = None, turns: Turns | None = None) -> Tensor:
        """Return (T, D), or (B, D) where `last` asks for the last event of each history alone."""
        normed = self.attention_norm(x if last is None else x[layout.last])
        x = self.feed_forward_norm(normed + self.attention(normed, x, layout, last, causal=True, turns=turns))
        out: Tensor = x + self.feed_forward(x)
        return out
