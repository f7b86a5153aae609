"""Users' old events, compressed once into the keys and values of their tokens, and read in their place from then on.

Shapes: U users of the dataset, B of a batch, K tokens, D width, M numbers that a block keeps of a
key.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from PerSRec.data import Inputs, make_inputs, row_times
from PerSRec.encoder import HistoryEncoder
from seqrec.basics.cache import CachedArrays, open_arrays
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.files import write_json
from seqrec.basics.opening import read_json_object
from seqrec.data.batches import RowSampler
from seqrec.data.dataset import Dataset, Histories
from seqrec.nn.ragged import longest_first
from seqrec.nn.repeats import Had
from seqrec.nn.segments import Rows, Segments, Window, insert_tokens, newest_events, recent_events

LATEST = "latest.json"
"""Names the arrays that are read."""
PART_EVENTS = 1 << 18
"""Old events of a part, which a kill may cost."""
BATCH_EVENTS = 1 << 14
"""Old events and tokens of a batch."""
_FACTOR = np.uint64(6364136223846793005)
Tokens = Literal["own", "other", "zero"]
Embed = Callable[[Tensor], Tensor]
"""Maps (T,) items to their (T, D) vectors."""


class Recalled(NamedTuple):
    """Recent events of histories, longest first, and what is kept of the old ones."""

    items: Tensor
    rows: Rows
    newest: Segments
    kept: Tensor
    """(B, blocks, 2, K, M)."""
    seconds: Tensor | None


class MixedInputs(NamedTuple):
    """Histories of which some have compressed old events and others are read as a whole."""

    recalled: Recalled | None
    whole: Inputs | None
    order: Tensor
    """Puts results, those of `recalled` first, back into the batch's order."""
    had: Had | None = None
    """What each history has, in the batch's order."""


def old_events(histories: Histories, window: Window, skipped: int = 0) -> Histories:
    """Return the events of each history before its recent ones, less some of the newest of these."""
    ends = np.maximum(histories.ends - window.num_recent - skipped, histories.starts)
    starts = np.maximum(ends - window.old.length, histories.starts)
    return Histories(histories.items, histories.users, starts, ends, histories.times)


def checksums(old: Histories) -> NDArray[np.uint64]:
    """Return a number for each history that changes with its events."""
    items, offsets = old.gather(np.arange(len(old)), max(1, int(old.lengths.max(initial=1))))
    place = np.arange(len(items)) - np.repeat(offsets[:-1], np.diff(offsets)) + 1
    with np.errstate(over="ignore"):
        mixed = (items.astype(np.uint64) * _FACTOR + place.astype(np.uint64)) * _FACTOR
        mixed ^= mixed >> np.uint64(29)
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed * _FACTOR, dtype=np.uint64)])
        found: NDArray[np.uint64] = total[offsets[1:]] - total[offsets[:-1]]
    return found


def user_keys(dataset: Dataset) -> NDArray[np.uint64]:
    """Return a number for each user, from their id in the source, (U,)."""
    ids = dataset.user_table()["raw_id"].to_list()
    digests = [hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in ids]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


@torch.no_grad()
def compress_histories(
    encoder: HistoryEncoder, embed: Embed, old: Histories, firsts: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Return the `memory` of some old events, (B, blocks, 2, K, M) float32, and the `times` of tokens, (B, K).

    Args:
        encoder: In evaluation mode, with user tokens.
        embed: Returns the vectors of items.
        old: Of each user; may be empty.
        firsts: (B,) place of each user's first event, whose time stands for that of no old event.
    """
    assert encoder.tokens is not None
    window, device = encoder.window.old, encoder.tokens.device
    K, timed = window.num_tokens, encoder.timed
    memory: list[Tensor] = []
    times: list[NDArray[np.int64]] = []
    batches = RowSampler(old.lengths + K, max_tokens=BATCH_EVENTS, shuffle=False).batches()
    for rows in (batch[::-1] for batch in batches):  # longest first
        items, offsets = old.gather(rows, window.length)
        lengths = np.diff(offsets)
        read = insert_tokens(lengths, window)
        seconds, of_tokens = None, np.zeros((len(rows), K), dtype=np.int64)
        if timed:
            assert old.times is not None
            # A history without old events has one time all the same, that of its first event.
            padded = np.append(old.gather_times(rows, window.length), 0)
            seconds = row_times(read, lengths, padded)
            of_tokens = seconds.numpy()[read.tokens.numpy()]
            of_tokens[lengths == 0] = old.times[firsts[rows]][lengths == 0, None]
            seconds[read.tokens] = torch.from_numpy(of_tokens)
            seconds = seconds.to(device)
        vectors = embed(torch.from_numpy(items).to(device))
        memory.append(encoder.compress(vectors, read.to(device), seconds).float().cpu())
        times.append(of_tokens)
    back = np.argsort(np.concatenate([batch[::-1] for batch in batches]))
    return {"memory": torch.cat(memory).numpy()[back], "times": np.concatenate(times)[back]}


@dataclass(slots=True)
class CompressedHistories:
    """What is kept of the users of a dataset, and how a model's inputs are made of it."""

    window: Window
    items: NDArray[np.int32]
    """All events of the dataset: histories of others are read as a whole."""
    starts: NDArray[np.int64]
    """(U,) place of each user's first event."""
    memory: NDArray[Any]
    """(n, blocks, 2, K, M)."""
    times: NDArray[np.int64] | None
    """(n, K) of tokens, where attention depends on time."""
    row_of: NDArray[np.int64]
    """(U,) row of each user, -1 where nothing is kept, or not of these events."""
    ends: NDArray[np.int64]
    """(U,) number of events up to the end of the old ones."""
    tokens: Tokens = "own"
    """Whose tokens a user gets: to measure what they are worth."""
    num_recalled: int = 0
    num_whole: int = 0
    """Histories that were read from the memory, and as a whole."""

    @property
    def num_users(self) -> tuple[int, int]:
        """Users with compressed old events, and all."""
        return int((self.row_of >= 0).sum()), len(self.row_of)

    def make_inputs(self, histories: Histories, rows: NDArray[np.int64]) -> MixedInputs:
        """Return the recent events of histories whose old ones are kept, and the latest of others."""
        users, window = histories.users[rows], self.window
        known = np.zeros(len(rows), dtype=bool)
        if histories.items is self.items:
            newer = histories.ends[rows] - self.starts[users] - self.ends[users]
            known = (self.row_of[users] >= 0) & (newer >= 1)
        at, others = np.flatnonzero(known), np.flatnonzero(~known)
        self.num_recalled += len(at)
        self.num_whole += len(others)
        recalled = whole = None
        if len(at):
            lengths = np.minimum(newer[at], window.num_recent)
            order = longest_first(lengths)
            at, lengths = at[order], lengths[order]
            recent = Histories(
                histories.items,
                histories.users,
                np.maximum(histories.starts, self.starts[histories.users] + self.ends[histories.users]),
                histories.ends,
                histories.times,
            )
            items, _ = recent.gather(rows[at], window.num_recent)
            read = recent_events(lengths, window)
            seconds, kept = None, self.row_of[users[at]]
            if self.tokens == "other":
                kept = (kept + 1) % len(self.memory)
            if self.times is not None:
                own = recent.gather_times(rows[at], window.num_recent)
                seconds = torch.from_numpy(np.concatenate([own, self.times[kept].flatten()]))
            memory = torch.from_numpy(np.asarray(self.memory[kept], dtype=np.float32))
            if self.tokens == "zero":
                memory.zero_()
            newest = newest_events(read, lengths, window)
            recalled = Recalled(torch.from_numpy(items), read, newest, memory, seconds)
        if len(others):
            whole = make_inputs(histories, rows[others], window, self.times is not None)
        return MixedInputs(recalled, whole, torch.from_numpy(np.argsort(np.concatenate([at, others]))))


def make_memory(
    encoder: HistoryEncoder,
    embed: Embed,
    digest: str,
    dataset: Dataset,
    histories: Histories,
    folder: Path,
    skipped: int = 0,
) -> tuple[Path, int]:
    """Compress the old events of users, unless that was done, and return the arrays' folder and how many were computed.

    Users whose old events are what they were keep what was computed for them.

    Args:
        encoder: In evaluation mode, with user tokens.
        embed: Returns the vectors of items.
        digest: Of the weights and the items.
        dataset: Whose users these are.
        histories: One of each user.
        folder: Of all that is kept; it is created.
        skipped: Newest old events that are left out.
    """
    old = old_events(histories, encoder.window, skipped)
    checks, keys = checksums(old), user_keys(dataset)[histories.users]
    ends = old.ends - dataset.offsets[histories.users]
    described = hashlib.sha256(checks.tobytes() + keys.tobytes() + ends.tobytes()).hexdigest()
    key = {"model": digest, "old": described, "format": 1}
    cuts = np.unique(np.cumsum(old.lengths + 1) // PART_EVENTS, return_index=True)[1][1:]
    parts = np.split(np.arange(len(old)), cuts)
    cache = CachedArrays(folder, key, len(parts))
    before = _arrays(folder, digest) if (folder / LATEST).is_file() else None
    computed = 0

    def make_part(part: int) -> dict[str, NDArray[Any]]:
        nonlocal computed
        rows = parts[part]
        found = np.full(len(rows), -1)
        if before is not None:
            row = _rows_of(before, keys[rows])
            same = (row >= 0) & (before["checks"][row] == checks[rows]) & (before["ends"][row] == ends[rows])
            found = np.where(same, row, -1)
        missing = np.flatnonzero(found < 0)
        computed += len(missing)
        firsts = dataset.offsets[histories.users[rows]]
        shape = (len(rows), *encoder.memory_shape)
        made: dict[str, NDArray[Any]] = {
            "memory": np.empty(shape, np.float32),
            "times": np.zeros((len(rows), encoder.window.num_tokens), np.int64),
        }
        if len(missing):
            for name, array in compress_histories(encoder, embed, old.select(rows[missing]), firsts[missing]).items():
                made[name][missing] = array
        if before is not None:
            for name, array in made.items():
                array[found >= 0] = before[name][found[found >= 0]]
        return made | {"users": keys[rows], "checks": checks[rows], "ends": ends[rows]}

    folder.mkdir(parents=True, exist_ok=True)
    cache.load(make_part, "compressing histories")
    write_json(folder / LATEST, {"arrays": cache.name, "model": digest})
    return cache.folder, computed


def _rows_of(arrays: dict[str, NDArray[Any]], users: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the row of each of some users, -1 where there is none."""
    order = np.argsort(arrays["users"])
    place = np.searchsorted(arrays["users"], users, sorter=order)
    row = order[np.minimum(place, len(order) - 1)]
    return np.where(arrays["users"][row] == users, row, -1)


def _arrays(folder: Path, digest: str) -> dict[str, NDArray[Any]] | None:
    """Return the arrays that are kept, or None if they are of another model."""
    advice = "run PerSRec/compress.sh again"
    latest = read_json_object(folder / LATEST, advice, {"arrays": str, "model": str})
    if latest["model"] != digest:
        return None
    name = latest["arrays"]
    if not name.isalnum() or not (folder / name).is_dir():
        raise UserError(f"{folder / LATEST} names the arrays {json.dumps(name)}, which are not there: {advice}")
    return open_arrays(folder / name)


def open_memory(
    encoder: HistoryEncoder, digest: str, dataset: Dataset, folder: Path, tokens: Tokens = "own"
) -> CompressedHistories:
    """Return what a folder keeps for a dataset's users.

    Raises:
        MissingFileError: If nothing is kept there.
        UserError: If it is of another model, or damaged.
    """
    if not (folder / LATEST).is_file():
        raise MissingFileError(f"{folder} holds no compressed histories: run PerSRec/compress.sh first")
    arrays = _arrays(folder, digest)
    if arrays is None:
        raise UserError(f"{folder} was compressed with other weights: run PerSRec/compress.sh again")
    row, starts = _rows_of(arrays, user_keys(dataset)), dataset.offsets[:-1]
    ends = np.where(row >= 0, arrays["ends"][row], 0)
    limit = np.minimum(starts + ends, dataset.offsets[1:])
    first = np.maximum(limit - encoder.window.old.length, starts)
    old = dataset.histories(np.arange(dataset.num_users), first, limit)
    same = (starts + ends == limit) & (checksums(old) == arrays["checks"][row])
    times = arrays["times"] if encoder.timed else None
    return CompressedHistories(
        encoder.window, dataset.items, starts, arrays["memory"], times, np.where(same, row, -1), ends, tokens
    )
