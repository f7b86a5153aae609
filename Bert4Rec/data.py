"""BERT4Rec's batches. Shapes: B users, T events of all of them, Q asked events.

Training masks items of a sequence and predicts them; in use, one masked event is appended and predicted.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from seqrec.basics.draws import RowDraws
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Histories
from seqrec.nn.losses import LossOptions
from seqrec.nn.negatives import Negatives, NegativeSampler
from seqrec.nn.ragged import Layout, cut_by_length, longest_first, make_layout
from seqrec.nn.repeats import Had, had_by_asked, had_by_history
from seqrec.training.transitions import with_transitions


class Inputs(NamedTuple):
    """Histories as the model reads them, longest first; `order` puts results back into the batch's order."""

    items: Tensor
    masked: Tensor
    positions: Tensor
    layout: Layout
    asked: Tensor
    asked_layout: Layout
    order: Tensor
    had: Had | None = None
    """What the history of each prediction has but for what is predicted; in use, in the batch's order."""


class TrainBatch(NamedTuple):
    """Sequences with masked items, their targets, and negatives."""

    inputs: Inputs
    targets: Tensor
    negatives: Negatives
    num_counted: int
    """Targets that count: all, or 0 in a process without a history of its own."""

    @property
    def items(self) -> Tensor:
        """(T,) events."""
        return self.inputs.items

    @property
    def had(self) -> Had | None:
        """What the history of each target has but for its targets."""
        return self.inputs.had


def _inputs(
    items: NDArray[np.int64],
    masked: NDArray[np.bool_],
    asked: NDArray[np.bool_],
    offsets: NDArray[np.int64],
    maxlen: int,
    order: NDArray[np.int64],
    had: Had | None,
) -> Inputs:
    lengths = np.diff(offsets)
    bounds = cut_by_length(lengths)
    positions = np.arange(offsets[-1]) - np.repeat(offsets[1:], lengths) + maxlen
    return Inputs(
        items=torch.from_numpy(items),
        masked=torch.from_numpy(masked),
        positions=torch.from_numpy(positions),
        layout=make_layout(lengths, bounds),
        asked=torch.from_numpy(np.flatnonzero(asked)),
        asked_layout=make_layout(np.add.reduceat(asked.astype(np.int64), offsets[:-1]), bounds),
        order=torch.from_numpy(np.argsort(order)),
        had=had,
    )


def make_inputs(histories: Histories, rows: NDArray[np.int64], maxlen: int, repeats: bool = False) -> Inputs:
    """Return the most recent `maxlen - 1` events of each history and one hidden event after them.

    Args:
        histories: A view.
        rows: (B,) histories of it.
        maxlen: Events that the model reads.
        repeats: Whether it has a score of what a history has.
    """
    order = longest_first(np.minimum(histories.lengths[rows], maxlen - 1))
    known, offsets = histories.gather(rows[order], maxlen - 1)
    items = np.insert(known, offsets[1:], 0)
    offsets = offsets + np.arange(len(offsets))
    hidden = np.zeros(len(items), dtype=bool)
    hidden[offsets[1:] - 1] = True
    had = had_by_history(histories, rows, maxlen - 1) if repeats else None
    return _inputs(items, hidden, hidden, offsets, maxlen, order, had)


class TrainDataset(Dataset[TrainBatch]):
    """Training sequences of at least 2 items, masked again in every epoch."""

    def __init__(
        self,
        train: Histories,
        num_items: int,
        maxlen: int,
        mask_prob: float,
        last_only_prob: float,
        options: LossOptions,
        seed: int,
        repeats: bool = False,
    ) -> None:
        self.sequences = with_transitions(train)
        self.num_items, self.maxlen, self.seed = num_items, maxlen, seed
        self.mask_prob, self.last_only_prob, self.repeats = mask_prob, last_only_prob, repeats
        read = replace(self.sequences, starts=np.maximum(self.sequences.starts, self.sequences.ends - maxlen))
        self.draw_negatives = NegativeSampler(options, self.sequences, num_items, read)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) number of events of each sequence."""
        return np.minimum(self.sequences.lengths, self.maxlen)

    def __getitem__(self, key: BatchKey) -> TrainBatch:
        order = longest_first(self.lengths[key.rows])
        rows = key.rows[order]
        draws = key.draws(self.seed, rows, "masks")
        items, offsets, asked = self._choose(rows, draws)
        targets = all_targets = items[asked]
        if key.batch_rows is not None and self.draw_negatives.options.needs_targets:
            read, _, chosen = self._choose(key.batch_rows, key.draws(self.seed, key.batch_rows, "masks"))
            all_targets = read[chosen]
        had = had_by_asked(items, np.diff(offsets), asked) if self.repeats else None
        # Of the predicted items 80 % are masked, 10 % replaced by a random one, 10 % left as they are.
        places, counts = np.flatnonzero(asked), np.add.reduceat(asked.astype(np.int64), offsets[:-1])
        fate = draws.uniform(counts)
        masked = np.zeros(len(items), dtype=bool)
        masked[places[fate < 0.8]] = True
        replaced = fate >= 0.9
        items[places[replaced]] = draws.integers(1, self.num_items + 1, counts)[replaced]
        return TrainBatch(
            _inputs(items, masked, asked, offsets, self.maxlen, order, had),
            torch.from_numpy(targets),
            self.draw_negatives(key, self.seed, rows, counts, all_targets),
            len(targets) if key.counts else 0,
        )

    def _choose(
        self, rows: NDArray[np.int64], draws: RowDraws
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return (T,) events, (B+1,) offsets, and (T,) which events are asked.

        A share of each sequence is asked, at least one event, or in some sequences the last event alone.
        """
        items, offsets = self.sequences.gather(rows, self.maxlen)
        lengths = np.diff(offsets)
        asked = draws.uniform(lengths) < self.mask_prob
        last_only = draws.uniform() < self.last_only_prob
        asked &= ~np.repeat(last_only, lengths)
        asked[offsets[1:][last_only] - 1] = True
        none = np.add.reduceat(asked, offsets[:-1]) == 0
        some = offsets[:-1] + draws.integers(0, lengths)
        asked[some[none]] = True
        return items, offsets, asked
