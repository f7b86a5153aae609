"""LSVCR's cases: what a user knew before a moment, and what is asked. Shapes as in `LSVCR.model`; n cases.

A history holds what lies strictly before the case's time, in both streams: an event that is the case itself, or of the
same second, is in neither.
"""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from LSVCR.model import Inputs
from LSVCR.options import Config
from LSVCR.timing import Clock
from seqrec.basics.arrays import ragged_arange
from seqrec.basics.draws import RowDraws
from seqrec.basics.errors import UserError
from seqrec.data.activity import Activity
from seqrec.data.comment_cases import CaseSplit, CommentCases, Entries, split_cases, taken_comments
from seqrec.data.comments import Comments
from seqrec.data.dataset import Histories
from seqrec.data.vectors import NONE, load_embeddings, vectors_sha256
from seqrec.nn.ragged import cut_by_length, longest_first, make_layout

HOT = 3
"""Popular comments of a video, of which one stands for it: any in training, the first in use."""


class Moments(NamedTuple):
    """Whose histories are read, and up to when."""

    users: NDArray[np.int64]
    """(n,)."""
    times: NDArray[np.int64]
    """(n,) seconds: events from then on are not read."""


class TextVectors(NamedTuple):
    """What texts of videos and comments are read as."""

    titles: NDArray[np.float32]
    """(N+1, W)."""
    comments: NDArray[np.float32]
    """(C+1, W)."""
    sha256: str
    """Of both."""


class DrawnBy(NamedTuple):
    """What decides a draw for each of (n,) rows."""

    seed: int
    epoch: int
    rows: NDArray[np.int64]


class Found(NamedTuple):
    """The rows of both histories of users, longest history of videos first."""

    order: NDArray[np.int64]
    """(B,) place i holds user order[i] of the batch."""
    lengths: tuple[NDArray[np.int64], NDArray[np.int64]]
    """(B,) rows of each history, at least 1."""
    videos: NDArray[np.int64]
    """(P,) items; 0 for an empty history, as in the next one."""
    entries: NDArray[np.int64]
    """(Q,) items."""
    taken: NDArray[np.int64]
    """(R,) comments."""
    owner: NDArray[np.int64]
    """(R,) entry of each."""

    def inputs(
        self, hot: NDArray[np.int64], watched: NDArray[np.int64] | None = None
    ) -> tuple[Inputs, NDArray[np.int64]]:
        """Return what the model reads but for texts, and the (M,) comments whose vectors the texts are.

        Args:
            hot: (P,) the comment that stands for each video.
            watched: (B,) items in the batch's order, whose comments are asked for.
        """
        known, places = np.unique(np.concatenate([[0], hot, self.taken]), return_inverse=True)
        cuts = cut_by_length(self.lengths[0])
        alone = None if watched is None else make_layout(np.ones_like(self.order), cuts)
        inputs = Inputs(
            videos=torch.from_numpy(self.videos),
            hot=torch.from_numpy(places[1 : 1 + len(hot)]),
            entries=torch.from_numpy(self.entries),
            taken=torch.from_numpy(places[1 + len(hot) :]),
            owner=torch.from_numpy(self.owner),
            places=(_places(self.lengths[0]), _places(self.lengths[1])),
            layouts=(make_layout(self.lengths[0], cuts), make_layout(self.lengths[1], cuts)),
            texts=None,
            watched=None if watched is None else torch.from_numpy(watched[self.order]),
            alone=alone,
            order=torch.from_numpy(np.argsort(self.order)),
        )
        return inputs, known


@dataclass(slots=True)
class Streams:
    """Both streams of events of a dataset, and the popular comments of each item."""

    comments: Comments
    entries: Entries
    hot: NDArray[np.int64]
    """(N+1, HOT) comments, most popular first, 0 for none."""
    vectors: NDArray[np.float32] | None
    """(C+1, W) text vectors of comments."""
    maxlen: int
    clock: Clock | None = None
    """Of what is ranked; None where times do not count."""

    def find(self, moments: Moments) -> Found:
        """Return the latest videos and entries of users before some moments."""
        video_stretch, entry_stretch = self._videos(moments), self._entries(moments)
        order = longest_first(np.minimum(video_stretch[1] - video_stretch[0], self.maxlen))
        rows, lengths = zip(*(_latest(start[order], end[order], self.maxlen) for start, end in
                              (video_stretch, entry_stretch)), strict=True)  # fmt: skip
        dataset, bounds = self.comments.dataset, self.entries.bounds
        counts = np.where(rows[1] < 0, 0, bounds[rows[1] + 1] - bounds[rows[1]])
        return Found(
            order=order,
            lengths=lengths,
            videos=np.where(rows[0] < 0, 0, dataset.items[rows[0]]).astype(np.int64),
            entries=np.where(rows[1] < 0, 0, self.entries.items[rows[1]]),
            taken=self.comments.own.items[ragged_arange(bounds[rows[1]], counts)].astype(np.int64),
            owner=np.repeat(np.arange(len(rows[1])), counts),
        )

    def read(
        self, moments: Moments, drawn_by: DrawnBy | None = None, watched: NDArray[np.int64] | None = None
    ) -> Inputs:
        """Return what the model reads of users before some moments.

        Args:
            moments: Of the cases.
            drawn_by: In training, what decides the draw of the comment that stands for a video.
            watched: (B,) the item whose comments are asked for.
        """
        found = self.find(moments)
        hot = self.hot[found.videos, 0]
        if drawn_by is not None:
            known = np.maximum((self.hot[found.videos] > 0).sum(axis=1), 1)
            draws = RowDraws(drawn_by.seed, drawn_by.epoch, drawn_by.rows[found.order], "hot comments")
            hot = self.hot[found.videos, draws.integers(0, known, found.lengths[0])]
        inputs, known = found.inputs(hot, watched)
        inputs = inputs._replace(moments=torch.from_numpy(moments.times))
        if self.vectors is None:
            return inputs
        return inputs._replace(texts=torch.from_numpy(np.asarray(self.vectors[known])))

    def count_rows(self, moments: Moments) -> NDArray[np.int64]:
        """Return (n,) number of rows that are read of both histories."""
        found = np.zeros(len(moments.users), dtype=np.int64)
        for start, end in (self._videos(moments), self._entries(moments)):
            found += np.clip(end - start, 1, self.maxlen)
        return found

    def _videos(self, moments: Moments) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        dataset = self.comments.dataset
        assert dataset.timestamps is not None
        there = moments.users < dataset.num_users  # others only have comments
        return _before(dataset.offsets, dataset.timestamps, np.where(there, moments.users, -1), moments.times)

    def _entries(self, moments: Moments) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return _before(self.entries.offsets, self.entries.last_times, moments.users, moments.times)


def _before(
    offsets: NDArray[np.int64], stamps: NDArray[np.int64], users: NDArray[np.int64], times: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each user's events begin, and where those before a time end; of user -1 there are none."""
    start, high = offsets[users], offsets[users + 1]
    start, high = np.where(users < 0, 0, start), np.where(users < 0, 0, high)
    low = start.copy()
    while (open_ := low < high).any():  # a binary search for all at once
        middle = (low + high) // 2
        earlier = open_ & (stamps[np.minimum(middle, len(stamps) - 1)] < times)
        low = np.where(earlier, middle + 1, low)
        high = np.where(open_ & ~earlier, middle, high)
    return start, low


def _latest(start: NDArray[np.int64], end: NDArray[np.int64], most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the latest events of each history and how many these are; one row, -1, of an empty one."""
    lengths = np.minimum(end - start, most)
    shown = np.maximum(lengths, 1)
    rows = ragged_arange(end - lengths, shown)
    rows[np.repeat(lengths, shown) == 0] = -1
    return rows, shown


def _places(lengths: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(ragged_arange(np.zeros_like(lengths), lengths))


def popular_comments(comments: Comments, cases: CommentCases, most: int = HOT) -> NDArray[np.int64]:
    """Return the comments of each item that training cases took up most often, (N+1, `most`), 0 for none."""
    _, taken = taken_comments(comments, cases.entries, cases.rows)
    counts = np.bincount(taken, minlength=comments.own.num_items + 1)
    order = np.lexsort((-counts[1:], comments.under[1:])) + 1  # earlier ones first where these are equal
    firsts, found = comments.firsts, np.zeros((comments.dataset.num_items + 1, most), dtype=np.int64)
    for rank in range(most):
        place = firsts[:-1] + rank
        there = place < firsts[1:]
        found[there, rank] = order[place[there] - 1]
    return found


def read_texts(comments: Comments, config: Config) -> TextVectors | None:
    """Return the text vectors that the flags name, if they name any.

    Raises:
        MissingFileError: If they are not there.
        UserError: If those of videos and of comments are not of one encoder, or a task cannot do without.
    """
    if config.text == NONE:
        if config.task == "CommRank":
            raise UserError("--task CommRank tells comments by their texts: give --text NAME")
        return None
    titles, own = (load_embeddings(config.text, d, config.embedding_dir) for d in (comments.dataset, comments.own))
    if titles.shape[1] != own.shape[1]:
        raise UserError(
            f"--text {config.text}: the vectors of videos have {titles.shape[1]} numbers and those of comments "
            f"{own.shape[1]}: make both by one encoder"
        )
    digests = "".join(vectors_sha256(vectors) for vectors in (titles, own))
    return TextVectors(titles, own, hashlib.sha256(digests.encode()).hexdigest())


def open_streams(comments: Comments, config: Config, vectors: NDArray[np.float32] | None) -> tuple[Streams, CaseSplit]:
    """Return what histories are read from, and the cases of comments.

    Raises:
        UserError: If the dataset has no times, or lacks those that count.
    """
    if comments.dataset.timestamps is None:
        raise UserError(f"{comments.dataset.path} has no timestamps, only order: two histories can't be told in time")
    cases = split_cases(comments, config.max_candidate_num)
    hot = popular_comments(comments, cases.train)
    clock = open_clock(comments, config) if config.timing != "none" else None
    return Streams(comments, cases.train.entries, hot, vectors, config.model.maxlen, clock), cases


def open_clock(comments: Comments, config: Config) -> Clock:
    """Return what the clock says of the candidates of a task."""
    dataset = comments.dataset
    assert dataset.timestamps is not None
    published, events = comments.item_published, (dataset.items, dataset.timestamps)
    if config.task == "CommRank":
        published, events = comments.published, (comments.own.items, comments.times)
    if published is None:
        raise UserError(f"--timing: {comments.own.path} does not say when candidates appeared: drop it")
    end = max(int(published.max()), int(dataset.timestamps.max()), int(comments.times.max(initial=0))) + 1
    return Clock(published, Activity(*events) if config.timing == "heat" else None, end)


def moments_of(histories: Histories, rows: NDArray[np.int64], comments: Comments) -> Moments:
    """Return the moment of the event that follows each history, or the end of time where none does."""
    chosen = histories.select(rows)
    return Moments(chosen.users, comments.dataset.moments(chosen))
