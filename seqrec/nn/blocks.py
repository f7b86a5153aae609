"""Layers that models over item ids share. Shapes: T events of a batch of histories, Q asked events, D width."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.basics.checks import require_at_least, require_at_most
from seqrec.basics.errors import UserError
from seqrec.nn.dropout import Dropout
from seqrec.nn.ragged import Layout, attend
from seqrec.nn.rotation import Rotation, rotate

Rotations = tuple[Rotation, Rotation]
"""Rotations of queries and of keys."""
Attention = Callable[[Tensor, Tensor], Tensor]
"""Maps (Q, D) asked events and the (T, D) events whose keys and values they may read to (Q, D)."""


def check_sizes(sizes: Any, least_length: int) -> None:
    """Check the flags of a transformer's dataclass: its width, blocks, heads, dropout and `maxlen`.

    Raises:
        UserError: If one is out of its range.
    """
    require_at_least(1, sizes, "hidden_units", "num_blocks", "num_heads")
    require_at_least(least_length, sizes, "maxlen")
    require_at_most(100_000, sizes, "hidden_units", "maxlen")
    require_at_most(1_000, sizes, "num_blocks")
    if sizes.hidden_units % sizes.num_heads:
        raise UserError(f"--hidden_units {sizes.hidden_units} must be a multiple of --num_heads {sizes.num_heads}")
    if not 0 <= sizes.dropout_rate < 1:
        raise UserError(f"--dropout_rate must lie in [0, 1), got {sizes.dropout_rate}")


class AttentionBlock(nn.Module):
    """Self-attention of a transformer block, without norms and residuals."""

    def __init__(self, width: int, num_heads: int, dropout_rate: float) -> None:
        super().__init__()
        self.num_heads, self.dropout_rate = num_heads, dropout_rate
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.attention_out = nn.Linear(width, width)

    def attention(
        self,
        asked: Tensor,
        events: Tensor,
        layout: Layout,
        asked_layout: Layout | None,
        *,
        causal: bool,
        turns: Rotations | None = None,
    ) -> Tensor:
        """Return (Q, D), or (T, D) without an `asked_layout`: what asked events take from all events of their history.

        Args:
            asked: (Q, D) where queries come from.
            events: (T, D) where keys and values come from.
            layout: Where each history lies in the events.
            asked_layout: Where each history's asked events lie, unless all are asked.
            causal: Whether an event attends to none after it.
            turns: Rotations of queries and keys, if attention depends on them.
        """
        query: Tensor = self.query(asked)
        key, value = self.key_value(events).chunk(2, dim=1)
        if turns is not None:
            query, key = (self._turn(x, turn) for x, turn in zip((query, key), turns, strict=True))
        mixed = attend(
            query,
            key,
            value,
            layout,
            num_heads=self.num_heads,
            causal=causal,
            dropout=self.dropout_rate if self.training else 0.0,
            query_layout=asked_layout,
        )
        out: Tensor = self.attention_out(mixed)
        return out

    def _turn(self, x: Tensor, turn: Rotation) -> Tensor:
        return rotate(x.view(len(x), self.num_heads, -1), turn).flatten(1)


class CausalBlock(AttentionBlock):
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

    def forward(self, x: Tensor, layout: Layout, last: Layout | None = None, turns: Rotations | None = None) -> Tensor:
        """Return (T, D), or (B, D) where `last` asks for the last event of each history alone."""
        attend_to = partial(self.attention, layout=layout, asked_layout=last, causal=True, turns=turns)
        return self.read(x, None if last is None else layout.last, attend_to)

    def read(self, x: Tensor, rows: Tensor | None, attend_to: Attention) -> Tensor:
        """Return what the block makes of some (Q,) rows of (T, D), or of all, under any attention."""
        normed = self.attention_norm(x if rows is None else x[rows])
        x = self.feed_forward_norm(normed + attend_to(normed, x))
        out: Tensor = x + self.feed_forward(x)
        return out

    def source(self, x: Tensor) -> Tensor:
        """Return where keys and values come from, (T, D)."""
        return x


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

    def forward(self, x: Tensor, layout: Layout, last: Layout | None = None, turns: Rotations | None = None) -> Tensor:
        """Return (T, D), or (B, D) where `last` asks for the last event of each history alone."""
        attend_to = partial(self.attention, layout=layout, asked_layout=last, causal=True, turns=turns)
        return self.read(x, None if last is None else layout.last, attend_to)

    def read(self, x: Tensor, rows: Tensor | None, attend_to: Attention) -> Tensor:
        """Return what the block makes of some (Q,) rows of (T, D), or of all, under any attention."""
        events = asked = self.source(x)
        if rows is not None:
            x, asked = x[rows], events[rows]
        x = x + self.attention_gate(x).sigmoid() * self.dropout(attend_to(asked, events))
        gate, inner = self.feed_forward_in(self.feed_forward_norm(x)).chunk(2, dim=1)
        out: Tensor = x + self.feed_forward_gate(x).sigmoid() * self.dropout(
            self.feed_forward_out(self.dropout(F.silu(gate) * inner))
        )
        return out

    def source(self, x: Tensor) -> Tensor:
        """Return where keys and values come from, (T, D)."""
        normed: Tensor = self.attention_norm(x)
        return normed
