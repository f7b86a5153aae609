"""One ranking for all users. Shapes: B users, N items."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec.training.module import NextItemModule


class SameForAll(NextItemModule):
    """Scores items independently of the user."""

    scores: Tensor

    def __init__(self, num_items: int, metric_ks: tuple[int, ...]) -> None:
        """Start with a score of zero for each of N items."""
        super().__init__(metric_ks)
        self.register_buffer("scores", torch.zeros(num_items + 1))

    def take(self, scores: NDArray[Any]) -> None:
        """Score items by (N+1,) numbers."""
        self.scores.copy_(torch.from_numpy(scores))

    def user_vectors(self, inputs: Tensor) -> Tensor:
        """Return (B, 1) ones."""
        return torch.ones(len(inputs), 1, device=self.scores.device)

    def item_vectors(self) -> Tensor:
        """Return the scores, (N+1, 1)."""
        return self.scores[:, None]
