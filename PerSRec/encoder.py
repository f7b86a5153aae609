"""The interface of what reads histories of item vectors.

Shapes: B users, T events of all, K tokens, E rows of events and tokens, D width, M numbers that a block keeps of a key.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from seqrec.nn.segments import Rows, Segments, Window


def in_order(rows: Rows, asked: Tensor) -> Tensor:
    """Return (E, ...) rows in their order from those that ask, segment after segment."""
    return torch.empty_like(asked).index_copy(0, rows.segments.queries, asked)


class HistoryEncoder(nn.Module, ABC):
    """User tokens, and what reads them among the vectors of a history's items."""

    timed: bool = False
    """Whether it reads the events' times."""

    def __init__(self, window: Window, width: int) -> None:
        """Take the slots of a history and its tokens, and D."""
        super().__init__()
        self.window, self.width = window, width
        K = window.num_tokens
        self.tokens = nn.Parameter(torch.empty(K, width).normal_(std=0.02)) if K else None

    @property
    @abstractmethod
    def memory_shape(self) -> tuple[int, int, int, int]:
        """(blocks, 2, K, M), what is kept of a user."""

    @abstractmethod
    def forward(
        self,
        vectors: Tensor,
        rows: Rows,
        seconds: Tensor | None = None,
        newest: Segments | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """Return each event's vector that predicts the next event.

        Args:
            vectors: (T, D) of the events' items.
            rows: Where events and tokens stand.
            seconds: (E,) times of the rows, those of a memory too, if the encoder is `timed`.
            newest: Of the newest events, if these alone are asked.
            memory: (B, blocks, 2, K, M) of `compress`, if the tokens are not among the rows.

        Returns:
            (T, D), or (B, D) for the newest events.
        """

    @abstractmethod
    def compress(self, vectors: Tensor, rows: Rows, seconds: Tensor | None = None) -> Tensor:
        """Return the keys and values of users' tokens in each block, (B, blocks, 2, K, M).

        Args:
            vectors: (T, D) of the old events' items.
            rows: Where these and the tokens stand in the old part of the window.
            seconds: (E,) times of the rows, if the encoder is `timed`.
        """

    def with_tokens(self, vectors: Tensor, rows: Rows) -> Tensor:
        """Return (E, D) events and tokens in their order; tokens that are apart have the mean of what they close."""
        if self.tokens is None:
            return vectors
        x = torch.cat([vectors, self.tokens.to(vectors.dtype)])[rows.source]
        if rows.closing is None:
            return x
        groups = self.window.groups
        number = len(rows.tokens) * len(groups)
        total = vectors.new_zeros(number + 1, self.width).index_add(0, rows.closing, vectors)[:-1]
        events = torch.bincount(rows.closing, minlength=number + 1)[:-1].clamp(min=1)
        sizes = torch.tensor([group.size for group in groups], device=x.device)
        own = (total / events[:, None]).unflatten(0, (-1, len(groups))).repeat_interleave(sizes, dim=1)  # (B, K, D)
        return x.index_add(0, rows.tokens.flatten(), own.flatten(0, 1))
