"""Which comments under an item a user takes up: entries of histories, and the cases of comment recommendation.

An entry is a stretch of a user's events with comments under one item, none of them more than a day after the one
before. A case asks for an entry's comments among those that stood under the item before its first event.

Shapes: V users of comments, m entries, n cases, T candidates of all.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seqrec.basics.arrays import ragged_arange
from seqrec.basics.draws import RowDraws
from seqrec.data.comments import Comments
from seqrec.data.protocol import CANDIDATE_SEED, EvaluationProtocol

DAY = 86_400


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries of all users, by user and time."""

    users: NDArray[np.int64]
    """(m,)."""
    items: NDArray[np.int64]
    """(m,) item under which the comments stand."""
    times: NDArray[np.int64]
    """(m,) seconds of the first event."""
    last_times: NDArray[np.int64]
    """(m,) seconds of the last event."""
    bounds: NDArray[np.int64]
    """(m+1,): entry i has the events with comments bounds[i]:bounds[i+1]."""
    offsets: NDArray[np.int64]
    """(V+1,): user v has the entries offsets[v]:offsets[v+1]."""
    firsts: NDArray[np.int64]
    """(m,) first comment under the item."""
    counts: NDArray[np.int64]
    """(m,) comments from there on that stood there before the first event."""


def find_entries(comments: Comments) -> Entries:
    """Return the entries of a dataset's comments.

    Where the source does not say when comments appeared, all of an item's stood there before.
    """
    own = comments.own
    owner = np.repeat(np.arange(own.num_users), np.diff(own.offsets))
    items, times = comments.under[own.items].astype(np.int64), comments.times
    begins = np.ones(len(owner), dtype=bool)
    begins[1:] = (np.diff(owner) != 0) | (np.diff(items) != 0) | (np.diff(times) > DAY)
    starts = np.flatnonzero(begins)
    bounds = np.append(starts, len(owner))
    first, counts = _standing(comments, items[starts], times[starts])
    return Entries(
        users=owner[starts],
        items=items[starts],
        times=times[starts],
        last_times=times[bounds[1:] - 1],
        bounds=bounds,
        offsets=np.searchsorted(owner[starts], np.arange(own.num_users + 1)),
        firsts=first,
        counts=counts,
    )


def _standing(
    comments: Comments, items: NDArray[np.int64], times: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first comment of each item and the number of those that stood under it before a time."""
    first, end = comments.firsts[items], comments.firsts[items + 1]
    if comments.published is None:
        return first, end - first
    # Comments are sorted by item and time, so one search finds the place among both.
    low = min(0, int(comments.published.min()), int(times.min(initial=0)))
    span = max(int(comments.published.max()), int(times.max(initial=0))) + 1 - low
    keys = comments.under.astype(np.int64) * span + comments.published - low
    place = np.searchsorted(keys, items * span + times - low)
    return first, np.clip(place, first, end) - first


def taken_comments(
    comments: Comments, entries: Entries, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the events with comments of some entries: the place of the entry in `rows`, and the comment."""
    lengths = entries.bounds[rows + 1] - entries.bounds[rows]
    events = ragged_arange(entries.bounds[rows], lengths)
    return np.repeat(np.arange(len(rows)), lengths), comments.own.items[events].astype(np.int64)


class Candidates(NamedTuple):
    """Comments to rank, case after case."""

    comments: NDArray[np.int64]
    """(T,) in 1..C, ascending within a case."""
    lengths: NDArray[np.int64]
    """(n,) of each case."""
    relevant: NDArray[np.bool_]
    """(T,) whether the user took it up."""


@dataclass(frozen=True, slots=True)
class CommentCases:
    """Entries that are asked for, and what there is to choose from."""

    comments: Comments
    entries: Entries
    rows: NDArray[np.int64]
    """(n,) entries."""
    limit: int
    """Greatest number of candidates of a case; relevant ones are always among them."""
    seed: int
    """Of the draw where there are more."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def users(self) -> NDArray[np.int64]:
        """(n,) user of each case."""
        return self.entries.users[self.rows]

    def candidates(self, chosen: NDArray[np.int64]) -> Candidates:
        """Return the candidates of some (B,) cases: a case has the same ones at any time and in any batch."""
        rows = self.rows[chosen]
        first, counts = self.entries.firsts[rows], self.entries.counts[rows]
        owner, found = np.repeat(np.arange(len(rows)), counts), ragged_arange(first, counts)
        relevant = np.zeros(len(found), dtype=bool)
        case, taken = taken_comments(self.comments, self.entries, rows)
        inside = (taken >= first[case]) & (taken < first[case] + counts[case])
        shift = np.cumsum(counts) - counts - first  # from a comment to its place
        relevant[(taken + shift[case])[inside]] = True
        if (counts <= self.limit).all():
            return Candidates(found, counts, relevant)
        keys = RowDraws(self.seed, 0, rows, "comment candidates").uniform(counts)
        keys[relevant] = -1
        order = np.lexsort((keys, owner))
        kept = np.zeros(len(found), dtype=bool)
        kept[order] = ragged_arange(np.zeros_like(counts), counts) < self.limit
        kept |= relevant
        return Candidates(found[kept], np.bincount(owner[kept], minlength=len(rows)), relevant[kept])


@dataclass(frozen=True, slots=True)
class CommentProtocol(EvaluationProtocol):
    """How comments under a video are ranked: all that a user took up there are relevant at once."""

    max_candidate_num: int = 100

    @property
    def several_targets(self) -> bool:
        """Whether a user may have more than one."""
        return True

    @property
    def record(self) -> dict[str, Any]:
        """Return everything that decides a run's ranks, as the run records it."""
        plain = EvaluationProtocol(sample_size=self.max_candidate_num)
        return plain.record | {"relevant": "all", "ranked": "comments"}


class CaseSplit(NamedTuple):
    """Cases by what they are for."""

    train: CommentCases
    valid: CommentCases
    test: CommentCases


def split_cases(comments: Comments, limit: int = 100, seed: int = CANDIDATE_SEED) -> CaseSplit:
    """Return the cases whose test case is a user's last entry and validation case the one before; the rest trains.

    A user with fewer than 3 entries only trains. A case needs a relevant candidate and another one: where the comment
    that was taken up did not stand there before, as far as the source tells, there is none.

    Args:
        comments: Of a dataset.
        limit: Greatest number of candidates of a case.
        seed: Of the draw where there are more.
    """
    entries = find_entries(comments)
    every, first, counts = np.arange(len(entries.users)), entries.firsts, entries.counts
    case, taken = taken_comments(comments, entries, every)
    inside = (taken >= first[case]) & (taken < first[case] + counts[case])
    pairs = np.unique(np.stack([case[inside], taken[inside]]), axis=1)
    hits = np.bincount(pairs[0], minlength=len(every))
    answerable = (hits > 0) & (hits < counts)
    number = np.diff(entries.offsets)[entries.users]
    from_end = entries.offsets[entries.users + 1] - every  # 1 is the last
    held_out = number >= 3
    parts = (~held_out | (from_end > 2), held_out & (from_end == 2), held_out & (from_end == 1))
    return CaseSplit(
        *(CommentCases(comments, entries, np.flatnonzero(part & answerable), limit, seed) for part in parts)
    )
