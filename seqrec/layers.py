"""Layers that models over item ids share. Shapes: T events of a batch of histories, Q asked events, D width."""

from typing import Any

from torch import Tensor, nn

from seqrec.checks import require_at_least, require_at_most
from seqrec.errors import UserError
from seqrec.ragged import Layout, attend
from seqrec.rotation import Rotation, rotate

Turns = tuple[Rotation, Rotation]
"""What asked events and all events are turned by before they are compared."""


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
    """A transformer block's self-attention; what stands around it is the block's own."""

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
        turns: Turns | None = None,
    ) -> Tensor:
        """Return (Q, D), or (T, D) without an `asked_layout`: what asked events take from all events of their history.

        Args:
            asked: (Q, D) where queries come from.
            events: (T, D) where keys and values come from.
            layout: Where each history lies in the events.
            asked_layout: Where each history's asked events lie, unless all are asked.
            causal: Whether an event attends to none after it.
            turns: If given, attention depends on their differences too.
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
