"""What had just appeared at a moment. Shapes: B moments, N items, K candidates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqrec.basics.arrays import ragged_arange
from seqrec.basics.errors import UserError
from seqrec.data.comments import load_publication
from seqrec.data.dataset import Dataset, Histories

DAY = 86_400


@dataclass(frozen=True, slots=True)
class FreshItems:
    """Items by when they appeared, of which the last days' are candidates."""

    dataset: Dataset
    published: NDArray[np.int64]
    """(N+1,) seconds; that of item 0 means nothing."""
    order: NDArray[np.int64]
    """(N,) items, oldest first."""
    days: float

    @classmethod
    def of(cls, dataset: Dataset, days: float) -> "FreshItems":
        """Take the times from a dataset.

        Raises:
            UserError: If it does not say when its items appeared, or when its events took place.
        """
        published = load_publication(dataset)
        if published is None or dataset.timestamps is None:
            raise UserError(
                f"--fresh_days: {dataset.path} does not say when its items appeared; `scripts/prepare.py comments` "
                "keeps the times of --videos"
            )
        return cls(dataset, published, np.argsort(published[1:], kind="stable") + 1, days)

    def are_fresh(self, items: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (B,) whether each item appeared within the days before its moment."""
        ages = times - self.published[items]
        return (ages >= 0) & (ages <= self.days * DAY)

    def others(self, users: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what appeared in the days before some moments and the user had not had by then.

        Args:
            users: (B,) rows of the dataset.
            times: (B,) seconds.

        Returns:
            (B, K) items, oldest first, then zeros; K is the greatest number of a row.
        """
        rows, items = self._window(times)
        new = ~np.isin(self._pairs(rows, items), self._pairs(*self._had(users, times)))
        return _fill(rows[new], items[new], len(times))

    def all(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what appeared in the days before (B,) moments, as `others` does."""
        return _fill(*self._window(times), len(times))

    def _window(self, times: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows and items of what appeared in the days before some moments."""
        first, counts = self._bounds(times)
        return np.repeat(np.arange(len(times)), counts), self.order[ragged_arange(first, counts)]

    def _bounds(self, times: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where in the order each window begins, and how many items it has."""
        stamps = self.published[self.order]
        first = np.searchsorted(stamps, times - self.days * DAY, side="left")
        return first, np.maximum(np.searchsorted(stamps, times, side="right") - first, 0)

    def _had(self, users: NDArray[np.int64], times: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows and items of everything that users had at some moments, what happened then included."""
        offsets, stamps = self.dataset.offsets, self.dataset.timestamps
        assert stamps is not None
        counts = offsets[users + 1] - offsets[users]
        rows, events = np.repeat(np.arange(len(users)), counts), ragged_arange(offsets[users], counts)
        earlier = stamps[events] <= times[rows]
        return rows[earlier], self.dataset.items[events[earlier]].astype(np.int64)

    def _pairs(self, rows: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows * (self.dataset.num_items + 1) + items

    def keep(self, histories: Histories) -> Histories:
        """Return the histories of an evaluation view whose target is fresh and has another candidate beside it."""
        moments = self.dataset.moments(histories)
        rows, items = self._had(histories.users, moments)
        fresh = self.are_fresh(items, moments[rows])
        had = np.unique(self._pairs(rows[fresh], items[fresh])) // (self.dataset.num_items + 1)
        others = self._bounds(moments)[1] - np.bincount(had, minlength=len(histories))
        return histories.select(self.are_fresh(histories.targets, moments) & (others > 0))


def _fill(rows: NDArray[np.int64], items: NDArray[np.int64], height: int) -> NDArray[np.int64]:
    """Return (B, K) items of each row, then zeros."""
    counts = np.bincount(rows, minlength=height)
    found = np.zeros((height, int(counts.max(initial=0))), dtype=np.int64)
    found[rows, ragged_arange(np.zeros_like(counts), counts)] = items
    return found
