"""Training histories whose events each predict the next one. Shapes: B histories, T events of all that predict."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Histories
from seqrec.nn.losses import LossOptions
from seqrec.nn.negatives import Negatives, NegativeSampler
from seqrec.nn.ragged import longest_first
from seqrec.nn.repeats import Had, had_by_event


def with_transitions(train: Histories) -> Histories:
    """Return the histories of at least two events.

    Raises:
        UserError: If there is none.
    """
    found = train.select(train.lengths >= 2)
    if not len(found):
        raise UserError("no training sequence has 2 items: nothing can be learned; prepare a larger dataset")
    return found


class Transitions(NamedTuple):
    """A batch's events and what follows each, longest history first."""

    rows: NDArray[np.int64]
    """(B,) histories."""
    events: NDArray[np.int64]
    """(T,) items, one history after another, oldest first."""
    targets: NDArray[np.int64]
    """(T,) the item after each."""
    lengths: NDArray[np.int64]
    """(B,) events of each history."""
    negatives: Negatives
    num_counted: int
    """Targets that count: all, or 0 in a process without a history of its own."""
    had: Had | None
    """What the history has up to each event."""

    def ask(self, events: NDArray[np.int64], options: LossOptions) -> "Transitions":
        """Return the transitions with the targets of some events alone, given by their places."""
        negatives = self.negatives
        if options.loss == "bce":  # one for each target
            negatives = negatives._replace(items=negatives.items[torch.from_numpy(events)])
        return self._replace(
            targets=self.targets[events],
            negatives=negatives,
            num_counted=len(events) if self.num_counted else 0,
            had=None if self.had is None else self.had.of(events),
        )


class TransitionReader:
    """Reads the transitions of a batch, at most the latest `maxlen` of a history, and draws its negatives."""

    def __init__(
        self,
        train: Histories,
        num_items: int,
        maxlen: int,
        options: LossOptions,
        seed: int,
        repeats: bool = False,
    ) -> None:
        """Take the training view.

        Args:
            train: The view.
            num_items: N.
            maxlen: Events of a history that are read.
            options: Of the loss.
            seed: Of the run.
            repeats: Whether the model has a score of what a history has.
        """
        self.sequences = s = with_transitions(train)
        self.maxlen, self.seed, self.options, self.repeats = maxlen, seed, options, repeats
        targets = replace(s, starts=np.maximum(s.starts + 1, s.ends - maxlen))
        self.draw_negatives = NegativeSampler(options, s, num_items, targets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) transitions of each history."""
        return np.minimum(self.sequences.lengths - 1, self.maxlen)

    def read(self, key: BatchKey) -> Transitions:
        """Return the transitions of a batch."""
        rows = key.rows[longest_first(self.lengths[key.rows])]
        items, offsets = self.sequences.gather(rows, self.maxlen + 1)
        events, targets = np.delete(items, offsets[1:] - 1), np.delete(items, offsets[:-1])
        lengths, all_targets = np.diff(offsets) - 1, targets
        if key.batch_rows is not None and self.options.needs_targets:
            read, starts = self.sequences.gather(key.batch_rows, self.maxlen + 1)
            all_targets = np.delete(read, starts[:-1])
        negatives = self.draw_negatives(key, self.seed, rows, lengths, all_targets)
        had = had_by_event(events, lengths) if self.repeats else None
        return Transitions(rows, events, targets, lengths, negatives, len(targets) if key.counts else 0, had)

    def times(self, transitions: Transitions) -> NDArray[np.int64]:
        """Return the (T,) times of the events that predict."""
        times = self.sequences.gather_times(transitions.rows, self.maxlen + 1)
        return np.delete(times, np.cumsum(transitions.lengths + 1) - 1)
