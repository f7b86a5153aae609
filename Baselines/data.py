"""Training events and their ages. Shapes: E training events, N items."""

import numpy as np
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.data.comments import load_publication
from seqrec.data.dataset import Dataset, Histories


def event_ages(train: Histories) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the (E,) items of all training events and their (E,) ages, from 0 (the newest) to 1 (the oldest).

    Age is time before the newest event where there are timestamps, and otherwise how many events of the same history
    came after.
    """
    rows, longest = np.arange(len(train)), int(train.lengths.max())
    items, offsets = train.gather(rows, longest)
    if train.times is not None:
        times = train.gather_times(rows, longest)
        ages = times.max() - times
    else:
        ages = np.repeat(offsets[1:], np.diff(offsets)) - 1 - np.arange(len(items))
    return items, ages / max(int(ages.max()), 1)


def score_items(
    items: NDArray[np.int64], ages: NDArray[np.float64], num_items: int, half_life: float | None
) -> NDArray[np.float64]:
    """Return (N+1,) how often each item occurs, an event counting half as much for each half-life of its age."""
    weights = None if half_life is None else 0.5 ** (ages / half_life)
    return np.bincount(items, weights, minlength=num_items + 1).astype(np.float64)


def order_of_appearance(dataset: Dataset, train: Histories) -> NDArray[np.int64]:
    """Return (N+1,) numbers of which the greater is that of what appeared later.

    An item appeared when it was published, or, where nothing says so, when somebody had it first in training; what
    nobody had there comes last.

    Raises:
        UserError: If the dataset has no times.
    """
    appeared = load_publication(dataset)
    if appeared is None:
        if train.times is None:
            raise UserError(f"--baseline newest: {dataset.path} has no timestamps, only order")
        rows, longest = np.arange(len(train)), int(train.lengths.max())
        last = np.iinfo(np.int64).max
        appeared = np.full(dataset.num_items + 1, last)
        np.minimum.at(appeared, train.gather(rows, longest)[0], train.gather_times(rows, longest))
        appeared[appeared == last] = np.iinfo(np.int64).min
    return np.unique(appeared, return_inverse=True)[1].astype(np.int64)
