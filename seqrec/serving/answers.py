"""What a served model is asked, and what it answers. Shapes: N items, those added among them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.serving.catalogue import NEIGHBOURS, Catalogue


@dataclass(frozen=True, slots=True)
class Query:
    """A history, and what to recommend to it."""

    history: NDArray[np.int64]
    """Items, the oldest first; may be empty."""
    k: int
    left_out: NDArray[np.int64]
    """Items that are not recommended."""
    among: NDArray[np.int64] | None = None
    """Items that may be; None for all."""


class Answer(NamedTuple):
    """The best items for a query, best first; fewer than k where there are no more."""

    items: NDArray[np.int64]
    scores: NDArray[np.float32]
    by: str = "model"
    """What ranked them: model, or popularity where the history is empty."""


class Placed(NamedTuple):
    """A new item's place among the others."""

    near: NDArray[np.int64]
    """The items whose words are nearest."""
    cosines: NDArray[np.float32]
    words: Any
    """(1, V) sparse."""


class Answering(ABC):
    """A model and its items."""

    name: str
    digest: str
    """Of the export; of a run, its folder."""
    catalogue: Catalogue

    @abstractmethod
    def rank(self, queries: Sequence[Query]) -> list[Answer]:
        """Return the answers to queries with histories."""

    @abstractmethod
    def similar(self, item: int, k: int) -> Answer:
        """Return the items whose vectors have the greatest cosine with an item's, and the cosines."""

    def place(self, texts: Mapping[str, str]) -> Placed:
        """Return where a new item would stand by its texts.

        Raises:
            UserError: If the model takes no items, or knows no word of the texts.
        """
        words = self.catalogue.read(texts)
        if words is None:
            raise UserError("no word of the texts occurs in those of two items or more, so that nothing is near to it")
        return Placed(*self.catalogue.nearest_texts(words, NEIGHBOURS), words)

    @abstractmethod
    def add(self, raw_id: str, texts: Mapping[str, str], placed: Placed) -> None:
        """Add an item with an id that none has: its vector is the mean of its neighbours', weighted by the cosines."""

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """Return the answers to queries; what is popular where a history is empty."""
        known = [query for query in queries if len(query.history)]
        ranked = iter(self.rank(known) if known else ())
        return [next(ranked) if len(query.history) else self._popular(query) for query in queries]

    def _popular(self, query: Query) -> Answer:
        scores = self.catalogue.counts.astype(np.float32)
        return best_of(scores, query)._replace(by="popularity")


def best_of(scores: NDArray[np.float32], query: Query) -> Answer:
    """Return the best items by (N+1,) scores, which are changed."""
    scores[0] = -np.inf
    scores[query.left_out] = -np.inf
    if query.among is not None:
        allowed = np.full_like(scores, -np.inf)
        allowed[query.among] = scores[query.among]
        scores = allowed
    k = min(query.k, len(scores))
    best = np.argpartition(-scores, k - 1)[:k]
    best = best[np.argsort(-scores[best], kind="stable")]
    best = best[scores[best] > -np.inf]
    return Answer(best, scores[best])


def by_cosine(products: NDArray[np.float32], lengths: NDArray[np.float32], item: int, k: int) -> Answer:
    """Return the items of greatest cosine with one, by (N+1,) products with its vector and the vectors' lengths."""
    scores = products / np.maximum(lengths * lengths[item], 1e-12)
    return best_of(scores, Query(np.array([item]), k, np.array([item])))
