"""One ranking for all users, and one of what each had before. Shapes: B users, N items, E events of all."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from seqrec.data.activity import Activity
from seqrec.evaluation.ranking import Ranking, rank_few
from seqrec.training.batches import HeldOut
from seqrec.training.module import NextItemModule, ScoringModule

ReadTexts = Callable[[Sequence[Sequence[int]]], NDArray[np.float32]]
"""Gives the (B, D) vectors of histories of items, each as one text."""


_PAYS = 8
"""Scores that are counted in the time in which one is sorted."""


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


class Latest(ScoringModule):
    """Scores items by when anybody had them last before a moment."""

    def __init__(self, num_items: int, metric_ks: tuple[int, ...], activity: Activity) -> None:
        """Take the events with N items."""
        super().__init__(num_items, metric_ks)
        self.activity = activity

    def scores(self, inputs: Tensor) -> Tensor:
        """Return (B, N+1) float64 of (B,) moments, in seconds."""
        items = np.arange(self.num_items + 1)[None]
        last = self.activity.last_before(items, inputs.cpu().numpy()[:, None])
        return torch.from_numpy(last.astype(np.float64)).to(inputs.device)


class OwnHistory(ScoringModule):
    """Scores items by the user's own history, in which recent events count more; popularity decides what is equal."""

    popularity: Tensor
    half_life: Tensor
    once = 0.0
    """Added to the score of each item that events speak for, besides what they say."""

    def __init__(self, num_items: int, metric_ks: tuple[int, ...]) -> None:
        """Start with N items that are equally popular, and with events that count alike."""
        super().__init__(num_items, metric_ks)
        self.register_buffer("popularity", torch.zeros(num_items + 1, dtype=torch.float64))
        self.register_buffer("half_life", torch.tensor(torch.inf, dtype=torch.float64))

    def take(self, counts: NDArray[Any], half_life: float) -> None:
        """Score by the (N+1,) counts what else is equal, and let an event count half after each so many later ones."""
        self.popularity.copy_(torch.from_numpy(counts / (counts.max() + 1)))
        self.half_life.fill_(half_life)

    @property
    def tie_breaks(self) -> Tensor:
        """What popularity adds to the (N+1,) scores of all users."""
        return 1e-6 * self.popularity

    @property
    def items_per_event(self) -> int:
        """Number of items that an event speaks for."""
        return 1

    def say(self, inputs: Events, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what (E,) events of some weight say: users, items and numbers, which are added up."""
        raise NotImplementedError

    def scores(self, inputs: Events) -> Tensor:
        """Return the score of each item for each user, (B, N+1) float64."""
        found = torch.zeros(inputs.num_users, self.num_items + 1, dtype=torch.float64, device=inputs.rows.device)
        keys, values = self._say(inputs)
        found.view(-1).index_add_(0, keys, values)
        if self.once:
            found.view(-1)[keys] += self.once
        return found + self.tie_breaks

    def rank(self, batch: HeldOut, catalogue: Tensor) -> list[Ranking]:
        """Return the ranks of a batch's targets; where events speak for few items, the others are only counted."""
        said, cells = len(batch.inputs.items) * self.items_per_event, len(batch.targets) * self.num_items
        if batch.negatives is not None or said * _PAYS > cells:
            return super().rank(batch, catalogue)
        every, values = self._say(batch.inputs)
        keys, place = torch.unique(every, return_inverse=True)
        sums = values.new_zeros(len(keys)).index_add_(0, place, values) + self.once
        rows, items, others = keys // (self.num_items + 1), keys % (self.num_items + 1), self.tie_breaks
        pairs = rows, items, sums + others[items]
        return [rank_few(pairs, others, batch.targets, seen=seen) for seen in batch.left_out]

    def _say(self, inputs: Events) -> tuple[Tensor, Tensor]:
        """Return the cells of a (B, N+1) matrix that the events speak for, some several times, and the numbers."""
        rows, items, values = self.say(inputs, 0.5 ** (inputs.ages / self.half_life))
        return rows * (self.num_items + 1) + items, values


class Favourites(OwnHistory):
    """Scores items by how often they occur in the user's own history."""

    once = 1.0  # however old, they stand before those that the user never had

    def say(self, inputs: Events, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each event's weight for its item."""
        return inputs.rows, inputs.items, weights


class Neighbours(OwnHistory):
    """Scores items by how near they are to those of the user's own history; K neighbours of an item count."""

    nearest: Tensor
    similarity: Tensor

    def __init__(self, num_items: int, metric_ks: tuple[int, ...], neighbours: int) -> None:
        """Start with items that are all unlike."""
        super().__init__(num_items, metric_ks)
        shape = num_items + 1, min(neighbours, num_items)
        self.register_buffer("nearest", torch.zeros(shape, dtype=torch.int64))
        self.register_buffer("similarity", torch.zeros(shape))

    def know(self, nearest: Tensor, similarity: Tensor) -> None:
        """Take the (N+1, K) neighbours of each item and how near they are."""
        self.nearest.copy_(nearest)
        self.similarity.copy_(similarity)

    @property
    def items_per_event(self) -> int:
        """Number of items that an event speaks for: its item's neighbours."""
        return self.nearest.shape[1]

    def say(self, inputs: Events, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each event's weight for its item's neighbours, by how near they are."""
        nearest = self.nearest[inputs.items]
        rows = inputs.rows[:, None].expand_as(nearest)
        return rows.flatten(), nearest.flatten(), (weights[:, None] * self.similarity[inputs.items]).flatten()


class GivenVectors(NextItemModule):
    """Scores items by the cosine of their vectors and the user's."""

    vectors: Tensor

    def __init__(self, num_items: int, metric_ks: tuple[int, ...], width: int) -> None:
        """Start with (N+1, D) vectors of zeros."""
        super().__init__(metric_ks)
        self.register_buffer("vectors", torch.zeros(num_items + 1, width))

    def know(self, vectors: NDArray[np.float32]) -> None:
        """Take the (N+1, D) vectors, each at length 1."""
        self.vectors.copy_(F.normalize(torch.from_numpy(vectors), dim=1))

    def item_vectors(self) -> Tensor:
        """Return (N+1, D)."""
        return self.vectors


class MeanVector(GivenVectors):
    """Users as the mean of the history's vectors, in which recent events count more."""

    half_life: Tensor

    def __init__(self, num_items: int, metric_ks: tuple[int, ...], width: int) -> None:
        """Start with vectors of zeros, and with events that count alike."""
        super().__init__(num_items, metric_ks, width)
        self.register_buffer("half_life", torch.tensor(torch.inf))

    def take(self, half_life: float) -> None:
        """Let an event count half after each so many later ones."""
        self.half_life.fill_(half_life)

    def user_vectors(self, inputs: Events) -> Tensor:
        """Return (B, D)."""
        weights = (0.5 ** (inputs.ages / self.half_life)).float()
        found = self.vectors.new_zeros(inputs.num_users, self.vectors.shape[1])
        return F.normalize(found.index_add_(0, inputs.rows, self.vectors[inputs.items] * weights[:, None]), dim=1)

    @property
    def most_events(self) -> int:
        """Greatest number of events that an exported graph reads."""
        return 10_000

    def read_rectangle(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Return the user vectors of histories in a rectangle, see `NextItemModule.read_rectangle`."""
        ages = lengths[:, None] - 1 - torch.arange(vectors.shape[1])
        weights = torch.where(ages >= 0, 0.5 ** (ages / self.half_life), 0.0)
        return F.normalize((vectors * weights[:, :, None]).sum(dim=1), dim=1)


class TextVector(GivenVectors):
    """Users as the vector of the history's texts, which are read as one."""

    def __init__(self, num_items: int, metric_ks: tuple[int, ...], width: int, reader: ReadTexts) -> None:
        """Start with vectors of zeros, and with what gives (B, D) vectors of histories' texts."""
        super().__init__(num_items, metric_ks, width)
        self.reader = reader

    def user_vectors(self, inputs: Events) -> Tensor:
        """Return (B, D)."""
        sizes = torch.bincount(inputs.rows, minlength=inputs.num_users).tolist()
        read = torch.from_numpy(self.reader([part.tolist() for part in inputs.items.split(sizes)]))
        return F.normalize(read.to(self.vectors.device), dim=1)
