"""SASRec over the vectors of items.

Shapes: E events of a batch, B users, d width.
Source: Li et al. (2023), https://arxiv.org/abs/2305.11700, and Kang & McAuley (2018),
https://doi.org/10.1109/ICDM.2018.00035. Deviations: nothing is computed for padding, which is no class either.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from PLMSASRec.options import SasrecOptions
from seqrec.items.recommender import initialise
from seqrec.nn.blocks import AttentionBlock
from seqrec.nn.dropout import Dropout
from seqrec.nn.ragged import Layout


class Block(AttentionBlock):
    """Causal self-attention and a feed-forward network, each followed by its residual and norm."""

    def __init__(self, options: SasrecOptions) -> None:
        width, eps = options.sasrec_hidden_size, options.sasrec_layer_norm_eps
        super().__init__(width, options.sasrec_n_heads, options.sasrec_attention_dropout)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.feed_forward_in = nn.Linear(width, options.sasrec_inner_size)
        self.feed_forward_out = nn.Linear(options.sasrec_inner_size, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = Dropout(options.sasrec_hidden_dropout)

    def forward(self, x: Tensor, layout: Layout, last: Layout | None = None) -> Tensor:
        """Return (E, d), or (B, d) where `last` asks for the last event of each history alone."""
        asked = x if last is None else x[layout.last]
        mixed = self.attention(asked, x, layout, last, causal=True)
        asked = self.attention_norm(asked + self.dropout(mixed))
        inner = F.gelu(self.dropout(self.feed_forward_in(asked)))
        out: Tensor = self.feed_forward_norm(asked + self.feed_forward_out(inner))
        return out


class SASRecEncoder(nn.Module):
    """Positions and blocks over the vectors of a history's items."""

    def __init__(self, options: SasrecOptions) -> None:
        super().__init__()
        self.width = width = options.sasrec_hidden_size
        self.positions = nn.Embedding(options.sasrec_seq_len, width)
        self.norm = nn.LayerNorm(width, eps=options.sasrec_layer_norm_eps)
        self.dropout = Dropout(options.sasrec_hidden_dropout)
        self.blocks = nn.ModuleList(Block(options) for _ in range(options.sasrec_n_layers))
        initialise(self, options.sasrec_initializer_range)

    def forward(self, vectors: Tensor, positions: Tensor, layout: Layout, last: Layout | None = None) -> Tensor:
        """Return each event's vector that predicts the next event.

        Args:
            vectors: (E, d) of the items, oldest event of a history first, one history after another.
            positions: (E,) int64, 0 for the oldest event that is read.
            layout: Where each history lies.
            last: If given, only the last event of each history is computed.

        Returns:
            (E, d), or (B, d) under `last`.
        """
        x = self.dropout(self.norm(vectors + self.positions(positions)))
        for block in self.blocks[:-1]:
            x = block(x, layout)
        out: Tensor = self.blocks[-1](x, layout, last)
        return out
