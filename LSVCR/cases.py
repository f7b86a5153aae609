"""The cases of both tasks, in batches: users before a moment, and what is ranked.

Shapes: B users, T candidates of all, K others of a video, M comments, W width of text vectors, F numbers of a
candidate's times.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from LSVCR.data import DrawnBy, Moments, Streams
from LSVCR.model import Inputs
from seqrec.basics.arrays import ragged_arange
from seqrec.basics.draws import RowDraws
from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey
from seqrec.data.comment_cases import CommentCases
from seqrec.data.dataset import Histories
from seqrec.data.fresh import FreshItems


class VideoBatch(NamedTuple):
    """Users before a video, and the video."""

    inputs: Inputs
    targets: Tensor
    others: Tensor | None
    """(B, K) int64 items that the target is told from, 0 for none; None for all."""
    times: Tensor | None
    """(B, 1 + K, F) what the clock says of the target and of these."""
    num_counted: int
    """Targets that count: all, or 0 in a process without a case of its own."""


class VideoCases(Dataset[VideoBatch]):
    """Every event but a user's first is a case, or, where fresh videos alone are told apart, every one of those."""

    def __init__(
        self, streams: Streams, train: Histories, seed: int, fresh: FreshItems | None = None, most: int = -1
    ) -> None:
        """Take the cases.

        Args:
            streams: Both histories.
            train: Of the events with videos.
            seed: Of draws.
            fresh: What a case is told from; None for all videos.
            most: Greatest number of these, drawn where there are more; -1 for all.

        Raises:
            UserError: If there is no case.
        """
        lengths = np.maximum(train.lengths - 1, 0)
        dataset, at = streams.comments.dataset, ragged_arange(train.starts + 1, lengths)
        assert dataset.timestamps is not None
        users, times = np.repeat(train.users, lengths), dataset.timestamps[at]
        if fresh is not None:
            kept = fresh.are_fresh(dataset.items[at].astype(np.int64), times)
            at, users, times = at[kept], users[kept], times[kept]
        if not len(at):
            raise UserError("no user has 2 videos to train on: prepare a larger dataset")
        self.streams, self.seed, self.fresh, self.most = streams, seed, fresh, most
        self.at, self.moments = at, Moments(users, times)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) rows of each case."""
        return self.streams.count_rows(self.moments)

    def __getitem__(self, key: BatchKey) -> VideoBatch:
        chosen, streams = Moments(self.moments.users[key.rows], self.moments.times[key.rows]), self.streams
        targets = streams.comments.dataset.items[self.at[key.rows]].astype(np.int64)
        others = times = None
        if self.fresh is not None and streams.clock is not None:
            others = self._others(self.fresh, chosen, key)
            times = streams.clock.read(np.column_stack([targets, others]), chosen.times[:, None])
        return VideoBatch(
            inputs=streams.read(chosen, DrawnBy(self.seed, key.epoch, key.rows)),
            targets=torch.from_numpy(targets),
            others=None if others is None else torch.from_numpy(others),
            times=times,
            num_counted=len(key.rows) if key.counts else 0,
        )

    def _others(self, fresh: FreshItems, moments: Moments, key: BatchKey) -> NDArray[np.int64]:
        """Return (B, K) videos that each target is told from, 0 for none."""
        found = fresh.others(*moments)
        if self.most < 0 or self.most >= found.shape[1]:
            return found
        draws = RowDraws(self.seed, key.epoch, key.rows, "videos")
        keys = draws.uniform(np.full(len(found), found.shape[1])).reshape(found.shape)
        order = np.argsort(np.where(found > 0, keys, np.inf), axis=1)[:, : self.most]
        return np.take_along_axis(found, order, axis=1)


class CommentBatch(NamedTuple):
    """Users under a video, and comments of it."""

    inputs: Inputs
    candidates: Tensor
    """(T,) int64 rows of `vectors`."""
    vectors: Tensor
    """(M, W) text vectors."""
    lengths: Tensor
    """(B,) int64 candidates of each user."""
    times: Tensor | None
    """(T, F) what the clock says of the candidates."""
    relevant: Tensor
    """(T,) bool."""
    rows: Tensor
    """In evaluation, places of the relevant ones among those of all cases."""
    num_counted: int


class CommentDataset(Dataset[CommentBatch]):
    """Cases of comments: with all candidates, or in training one that was taken and some that were not."""

    def __init__(self, streams: Streams, cases: CommentCases, negatives: int | None, seed: int) -> None:
        self.streams, self.cases, self.negatives, self.seed = streams, cases, negatives, seed
        entries = cases.entries
        self.moments = Moments(cases.users, entries.times[cases.rows])
        found = cases.candidates(np.arange(len(cases)))
        owner = np.repeat(np.arange(len(cases)), found.lengths)[found.relevant]
        self.firsts = np.searchsorted(owner, np.arange(len(cases) + 1))
        self.users = cases.users[owner]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) rows of each case."""
        return self.streams.count_rows(self.moments)

    def __getitem__(self, key: BatchKey) -> CommentBatch:
        rows, streams = key.rows, self.streams
        comments, lengths, relevant = self.cases.candidates(rows)
        drawn_by = None
        if self.negatives is not None:
            drawn_by = DrawnBy(self.seed, key.epoch, rows)
            draws = RowDraws(*drawn_by, "comments")
            owner = np.repeat(np.arange(len(rows)), lengths)
            order = np.lexsort((draws.uniform(lengths), ~relevant, owner))
            taken = np.bincount(owner[relevant], minlength=len(rows))
            place = ragged_arange(np.zeros_like(lengths), lengths)  # taken ones stand first
            chosen = order[(place == 0) | ((place >= taken[owner]) & (place < (taken + self.negatives)[owner]))]
            comments, relevant = comments[chosen], relevant[chosen]
            lengths = np.bincount(owner[chosen], minlength=len(rows))
        moments = Moments(self.moments.users[rows], self.moments.times[rows])
        watched = self.cases.entries.items[self.cases.rows[rows]]
        clock = streams.clock
        known, places = np.unique(comments, return_inverse=True)
        assert streams.vectors is not None
        spans = ragged_arange(self.firsts[rows], self.firsts[rows + 1] - self.firsts[rows])
        return CommentBatch(
            inputs=streams.read(moments, drawn_by, watched),
            candidates=torch.from_numpy(places),
            vectors=torch.from_numpy(np.asarray(streams.vectors[known])),
            lengths=torch.from_numpy(lengths),
            times=None if clock is None else clock.read(comments, np.repeat(moments.times, lengths)),
            relevant=torch.from_numpy(relevant),
            rows=torch.from_numpy(spans),
            num_counted=len(rows) if key.counts else 0,
        )
