"""How the tokens of a batch attend to one another: what `Blocks` asks in each of its blocks.

Shapes: T tokens of a batch, H heads of queries, G heads of keys and values, E width of a head, P prefix vectors, Q
suffix vectors, K query tokens at the end of every text.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from seqrec.nn.ragged import Layout, Plan, Rectangle, mix, repeat_heads


class Reading(ABC):
    """Positions of a batch's tokens, and attention among them."""

    @property
    @abstractmethod
    def positions(self) -> Tensor:
        """(T,) int64 positions, from 0."""

    @property
    @abstractmethod
    def longest(self) -> int:
        """Most tokens that one may see, itself included."""

    @abstractmethod
    def attend(
        self, block: int, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float | None, dropout: float
    ) -> Tensor:
        """Return (T, H, E) attention.

        Args:
            block: Number of the block that asks.
            q: (T, H, E).
            k: (T, G, E).
            v: (T, G, E).
            causal: Whether the model is a decoder.
            scale: Factor of the products; E**-0.5 if not given.
            dropout: Share of attention weights dropped.
        """


class Extra(NamedTuple):
    """Keys and values of a block that belong to no token: vectors that are learned in their place."""

    prefix: tuple[Tensor, Tensor] | None
    """(P, G, E) each, seen by all tokens."""
    suffix: tuple[Tensor, Tensor] | None
    """(Q, G, E) each, seen by the query tokens alone."""


@dataclass(frozen=True, slots=True)
class TextReading(Reading):
    """Attention within each text alone, and to what prompts add to it."""

    plan: Plan
    extras: Mapping[int, Extra] = field(default_factory=dict)
    """By number of the block."""
    num_queries: int = 0
    """K."""
    masks: dict[int, Tensor] = field(default_factory=dict)
    """Attention masks by number of the rectangle; filled on first use."""

    @property
    def positions(self) -> Tensor:
        """(T,) int64 positions; a prefix has those before."""
        extra = next(iter(self.extras.values()), None)
        return self.plan.positions + (0 if extra is None or extra.prefix is None else len(extra.prefix[0]))

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return int(self.plan.layout.rectangles[-1].shape[1])

    def attend(
        self, block: int, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float | None, dropout: float
    ) -> Tensor:
        """Return (T, H, E) attention within each text, see `Reading`."""
        layout, heads, extra = self.plan.layout, q.shape[1], self.extras.get(block)
        out = []
        packed = zip(*map(layout.pack, (q, k, v)), strict=True)  # (n, L, H or G, E)
        for number, rows in enumerate(packed):
            q, k, v = rows
            mask, triangle = layout.rectangles[number].mask, causal
            if extra is not None:
                k, v = (_lengthened(x, extra, which) for which, x in enumerate((k, v)))
                if number not in self.masks:
                    self.masks[number] = _prompted_mask(layout, number, extra, self.num_queries, causal)
                mask, triangle = self.masks[number], False
            q, k, v = (repeat_heads(x.transpose(1, 2), heads) for x in (q, k, v))  # (n, H, L, E)
            # Padding stands to the right of every token, so the causal mask hides it.
            out.append(mix(q, k, v, None if triangle else mask, triangle, dropout, scale).transpose(1, 2))
        return layout.unpack(out)


def _lengthened(x: Tensor, extra: Extra, which: int) -> Tensor:
    """Return (n, P + L + Q, G, E) keys or values from (n, L, G, E)."""
    before = [extra.prefix[which]] if extra.prefix is not None else []
    after = [extra.suffix[which]] if extra.suffix is not None else []
    parts = [part.to(x.dtype).expand(len(x), *part.shape) for part in (*before, *after)]
    return torch.cat([*parts[: len(before)], x, *parts[len(before) :]], dim=1)


def _prompted_mask(layout: Layout, number: int, extra: Extra, num_queries: int, causal: bool) -> Tensor:
    """Return (n, 1, L, P + L + Q) bool: which keys a token sees."""
    rectangle: Rectangle = layout.rectangles[number]
    n, length = rectangle.shape
    device = layout.offsets.device
    P, Q = (0 if part is None else len(part[0]) for part in extra)
    real = torch.ones(n, 1, 1, length, dtype=torch.bool, device=device) if rectangle.mask is None else rectangle.mask
    place = torch.arange(length, device=device)
    seen = real & (place <= place[:, None]) if causal else real.expand(n, 1, length, length)
    first_query = real.sum(-1, keepdim=True) - num_queries  # (n, 1, 1, 1)
    is_query = (place[:, None] >= first_query).expand(n, 1, length, Q)
    return torch.cat([seen.new_ones(n, 1, length, P), seen, is_query], dim=-1)
