"""One ranking for all users, and one of what each had before. Shapes: B users, N items, E events of all."""

from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec.training.module import NextItemModule, ScoringModule


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


class Events(NamedTuple):
    """All events of some histories."""

    num_users: int
    rows: Tensor
    """(E,) int64 users, from 0."""
    items: Tensor
    """(E,) int64."""
    ages: Tensor
    """(E,) float64: how many events of the same history came after."""


class Favourites(ScoringModule):
    """Scores items by how often they occur in the user's own history, recent events more, the others by popularity."""

    popularity: Tensor
    half_life: Tensor

    def __init__(self, num_items: int, metric_ks: tuple[int, ...]) -> None:
        """Start with N items that are equally popular, and with events that count alike."""
        super().__init__(num_items, metric_ks)
        self.register_buffer("popularity", torch.zeros(num_items + 1, dtype=torch.float64))
        self.register_buffer("half_life", torch.tensor(torch.inf, dtype=torch.float64))

    def take(self, counts: NDArray[Any], half_life: float) -> None:
        """Score by the (N+1,) counts what else is equal, and let an event count half after each so many later ones."""
        self.popularity.copy_(torch.from_numpy(counts / (counts.max() + 1)))
        self.half_life.fill_(half_life)

    def scores(self, inputs: Events) -> Tensor:
        """Return the score of each item for each user, (B, N+1) float64."""
        own = inputs.rows, inputs.items
        found = torch.zeros(inputs.num_users, self.num_items + 1, dtype=torch.float64, device=inputs.rows.device)
        found.index_put_(own, 0.5 ** (inputs.ages / self.half_life), accumulate=True)
        found[own] += 1  # once for each item: however old, it stands before those that the user never had
        # Popularity decides among items of equal score.
        return found.add_(self.popularity, alpha=1e-6)
