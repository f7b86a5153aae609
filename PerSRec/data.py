"""PerSRec's batches. Shapes: B users, T events of all of them, K tokens, E = T + B K rows.

A training sequence predicts each of its items from those before it. The newest event has the last slot of the window,
in training and in use.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from PerSRec.options import Config, HistoryOptions
from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Histories
from seqrec.nn.negatives import Negatives
from seqrec.nn.ragged import longest_first
from seqrec.nn.repeats import Had
from seqrec.nn.segments import Rows, Segments, Window, insert_tokens, newest_events, recent_events
from seqrec.training.item_batches import ItemBatch, ItemReader
from seqrec.training.transitions import TransitionReader


class Inputs(NamedTuple):
    """Histories as the model reads them, longest first; `order` puts results back into the batch's order."""

    items: Tensor
    rows: Rows
    newest: Segments
    order: Tensor
    seconds: Tensor | None = None
    """(E,) time of each row; a token has that of the event before it."""
    had: Had | None = None
    """What each history has, in the batch's order."""


class TextBatch(NamedTuple):
    """Histories, and the items to encode for them."""

    items: ItemBatch
    rows: Rows
    seconds: Tensor | None = None
    asked: Tensor | None = None
    """Places of the events that predict, if not all do."""


class TrainBatch(NamedTuple):
    """Histories, the item that follows each event, and negatives."""

    items: Tensor
    rows: Rows
    targets: Tensor
    negatives: Negatives
    num_counted: int
    """Targets that count: all, or 0 in a process without a history of its own."""
    seconds: Tensor | None = None
    asked: Tensor | None = None
    """Places of the events that predict, if not all do."""
    had: Had | None = None
    """What the history has up to each of them."""


def make_inputs(
    histories: Histories, rows: NDArray[np.int64], window: Window, timed: bool = False, only_recent: bool = False
) -> Inputs:
    """Return the latest events of each history and the tokens among them; no history may be empty.

    Args:
        histories: A view.
        rows: (B,) histories of it.
        window: The slots.
        timed: Whether the model reads times.
        only_recent: Leave out old events and tokens.
    """
    longest = window.num_recent if only_recent else window.length
    order = longest_first(np.minimum(histories.lengths[rows], longest))
    items, offsets = histories.gather(rows[order], longest)
    lengths = np.diff(offsets)
    read = recent_events(lengths, window, remembered=False) if only_recent else insert_tokens(lengths, window)
    times = histories.gather_times(rows[order], longest) if timed else None
    return Inputs(
        torch.from_numpy(items),
        read,
        newest_events(read, lengths, window),
        torch.from_numpy(np.argsort(order)),
        None if times is None else row_times(read, lengths, times),
    )


def row_times(rows: Rows, lengths: NDArray[np.int64], times: NDArray[np.int64]) -> Tensor:
    """Return the time of each row from the (T,) times of the events of (B,) lengths.

    A token's is that of the newest event before it, without one that of the oldest event of the history.
    """
    K = rows.tokens.shape[1]
    is_event = np.zeros(len(rows.source), dtype=np.int64)
    is_event[rows.events.numpy()] = 1
    first = np.repeat(np.cumsum(lengths) - lengths, lengths + K)
    return torch.from_numpy(times[np.maximum(np.cumsum(is_event) - 1, first)])


def recent_places(lengths: NDArray[np.int64], window: Window) -> NDArray[np.int64]:
    """Return the places of recent events among the (T,) events of histories of (B,) lengths."""
    first = np.cumsum(lengths) - np.minimum(lengths, window.num_recent)
    return np.flatnonzero(np.arange(int(lengths.sum())) >= np.repeat(first, lengths))


def closing_events(rows: Rows, window: Window) -> tuple[Tensor, Tensor]:
    """Return the events that stand right before a group of tokens, and the number of its first token, (n,) int64 both.

    Args:
        rows: Of training sequences of T events.
        window: Their slots.
    """
    sizes = torch.tensor([group.size for group in window.groups], device=rows.places.device)
    firsts = sizes.cumsum(0) - sizes
    at = rows.tokens[:, firsts]
    before = (at - 1).clamp(min=0)
    # A row that belongs to another history, or to another group, does not have the place before.
    is_event = rows.source[before] < len(rows.events)
    closes = is_event & (rows.places[before] == rows.places[at] - 1)
    return rows.source[before[closes]], firsts.expand_as(at)[closes]


def cut_histories(train: Histories, options: HistoryOptions) -> Histories:
    """Return training sequences: a history of more than F events gives several of F, its oldest events are left out."""
    F = options.train_feat_max_length or options.maxlen + 1
    if not options.data_split:
        return train
    counts = np.maximum(train.lengths // F, 1)
    owner = np.repeat(np.arange(len(train)), counts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    ends = train.ends[owner] - (counts[owner] - 1 - number) * F
    starts = np.where(train.lengths[owner] > F, ends - F, train.starts[owner])
    return Histories(train.items, train.users[owner], starts, ends, train.times)


def make_reader(config: Config, train: Histories, num_items: int) -> TransitionReader:
    """Return what reads the transitions of training sequences.

    Raises:
        UserError: If the dataset has no times, and the model reads them.
    """
    if config.model.time_bias and train.times is None:
        raise UserError("this dataset has no timestamps, only order: train without --time_bias")
    cut = cut_histories(train, config.history)
    options, seed = config.objective, config.training.seed
    return TransitionReader(cut, num_items, config.history.maxlen, options, seed, config.repeat_score)


class HistoryDataset(Dataset[TrainBatch | TextBatch]):
    """Training sequences with at least one transition; with `read_items`, their items are to be encoded."""

    def __init__(self, reader: TransitionReader, config: Config, read_items: ItemReader | None = None) -> None:
        self.reader, self.read_items = reader, read_items
        self.window, self.timed = config.history.window, config.model.time_bias
        self.only_recent = not config.history.loss_on_all_items

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) number of events of each sequence."""
        return self.reader.lengths

    def __getitem__(self, key: BatchKey) -> TrainBatch | TextBatch:
        read = self.reader.read(key)
        rows = insert_tokens(read.lengths, self.window)
        seconds = row_times(rows, read.lengths, self.reader.times(read)) if self.timed else None
        asked = None
        if self.only_recent:
            recent = recent_places(read.lengths, self.window)
            read, asked = read.ask(recent, self.reader.options), torch.from_numpy(recent)
        if self.read_items is not None:
            return TextBatch(self.read_items(read), rows, seconds, asked)
        return TrainBatch(
            items=torch.from_numpy(read.events),
            rows=rows,
            targets=torch.from_numpy(read.targets),
            negatives=read.negatives,
            num_counted=read.num_counted,
            seconds=seconds,
            asked=asked,
            had=read.had,
        )
