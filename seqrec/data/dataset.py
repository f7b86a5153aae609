"""The prepared dataset and its splits, as views on memory-mapped files.

Shapes: U users, E events, N items, n histories of a view. Items are 1..N, 0 is padding; users are rows 0..U-1.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.paths import ROOT
from seqrec.data.dataset_files import check_item_ids, open_sequences, read_manifest, read_table

END = np.iinfo(np.int64).max
"""A moment after all others."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One prepared folder, `data/<name>/`, as `scripts/prepare.py` writes it."""

    path: Path
    name: str
    num_users: int
    num_items: int
    offsets: NDArray[np.int64]
    """(U+1,): user u's events are offsets[u]:offsets[u+1]."""
    items: NDArray[np.int32]
    """(E,) in 1..N, by user, then time, then position in the source."""
    timestamps: NDArray[np.int64] | None
    """(E,) seconds; None where the source has only order."""
    attributes: tuple[str, ...]
    item_ids_sha256: str
    sequences_sha256: str
    manifest: dict[str, Any]

    def histories(self, users: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> "Histories":
        """Return the view of (n,) users' events from (n,) starts to (n,) ends."""
        return Histories(self.items, users, starts, ends, self.timestamps)

    def whole_histories(self) -> "Histories":
        """Return every user's events."""
        return self.histories(np.arange(self.num_users), self.offsets[:-1], self.offsets[1:])

    def moments(self, histories: "Histories") -> NDArray[np.int64]:
        """Return when the event after each of (n,) histories took place, in seconds; END where there is none.

        Raises:
            UserError: If the events have no times, or the histories are not of this dataset.
        """
        if self.timestamps is None:
            raise UserError(f"{self.path} has no timestamps, only order: what was known at a moment can't be told")
        if histories.items is not self.items:
            raise UserError("this model reads when events took place: give --users of the dataset, not a --history")
        follows = histories.ends < self.offsets[histories.users + 1]
        return np.where(follows, self.timestamps[np.minimum(histories.ends, len(self.timestamps) - 1)], END)

    def item_table(self) -> pl.DataFrame:
        """Return items.parquet: `item` 1..N in order, `raw_id`, then the text attributes in their order."""
        file = self.path / "items.parquet"
        table = read_table(file, "item", 1, self.num_items, ("raw_id", *self.attributes))
        check_item_ids(file, table["raw_id"], self.item_ids_sha256)
        return table

    def user_table(self) -> pl.DataFrame:
        """Return users.parquet: `user` 0..U-1 in order and `raw_id`."""
        return read_table(self.path / "users.parquet", "user", 0, self.num_users, ("raw_id",))


@dataclass(frozen=True, slots=True)
class Histories:
    """n stretches of the event array: history i is items[starts[i]:ends[i]].

    In an evaluation view the target of history i is the event that follows it, items[ends[i]].
    """

    items: NDArray[np.int32]
    users: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    times: NDArray[np.int64] | None = None
    """(E,) seconds, where the source has them."""

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) number of events in each history."""
        return self.ends - self.starts

    @property
    def targets(self) -> NDArray[np.int64]:
        """(n,) the item that follows each history; only for an evaluation view."""
        return np.asarray(self.items[self.ends], dtype=np.int64)

    def select(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Histories":
        """Return the view of some rows, in the order given."""
        return Histories(self.items, self.users[rows], self.starts[rows], self.ends[rows], self.times)

    def gather(self, rows: NDArray[np.int64], max_length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the most recent `max_length` events of some histories, without padding.

        Args:
            rows: (B,) indices into this view.
            max_length: At least 1; older events are left out.

        Returns:
            (T,) int64 items, oldest first within a history, and (B+1,) int64 offsets into them.
        """
        places, offsets = self._places(rows, max_length)
        return self.items[places].astype(np.int64), offsets

    def gather_times(self, rows: NDArray[np.int64], max_length: int) -> NDArray[np.int64]:
        """Return the times of the events of `gather`, (T,) seconds.

        Raises:
            UserError: If the events have no times.
        """
        if self.times is None:
            raise UserError(
                "these histories have no timestamps, only order: train without --relative_time, or recommend to the "
                "--users of a dataset with timestamps rather than for a --history"
            )
        return np.asarray(self.times[self._places(rows, max_length)[0]], dtype=np.int64)

    def _places(self, rows: NDArray[np.int64], max_length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the (T,) indices into the event array of `gather` and (B+1,) offsets into them."""
        ends = self.ends[rows]
        lengths = np.minimum(ends - self.starts[rows], max_length)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        return np.arange(offsets[-1]) + np.repeat(ends - lengths - offsets[:-1], lengths), offsets

    def item_counts(self, num_items: int) -> NDArray[np.int64]:
        """Return (N+1,) how often each item occurs in these histories."""
        if not len(self):
            return np.zeros(num_items + 1, dtype=np.int64)
        rows = np.arange(len(self))
        values, _ = self.gather(rows, int(max(self.lengths.max(), 1)))
        return np.bincount(values, minlength=num_items + 1)


def load_dataset(path: Path) -> Dataset:
    """Return the prepared dataset of a folder, memory-mapped.

    Raises:
        MissingFileError: If the folder is not a prepared dataset.
        UserError: If its files are not what its manifest says.
    """
    manifest_file = path / "manifest.json"
    if not manifest_file.is_file():
        raise MissingFileError(
            f"{manifest_file} does not exist: prepare the dataset first, for example "
            f"`python scripts/prepare.py demo --name {path.name}`"
        )
    manifest = read_manifest(manifest_file)
    arrays = open_sequences(path / "sequences", manifest)
    return Dataset(
        path=path,
        name=manifest["name"],
        num_users=manifest["num_users"],
        num_items=manifest["num_items"],
        offsets=arrays["offsets"],
        items=arrays["items"],
        timestamps=arrays.get("timestamps"),
        attributes=tuple(manifest["attributes"]),
        item_ids_sha256=manifest["item_ids_sha256"],
        sequences_sha256=manifest["sequences_sha256"],
        manifest=manifest,
    )


def find_dataset(dataset: str | None, data_path: Path | None, data_dir: Path = ROOT / "data") -> Dataset:
    """Return the dataset that `--dataset NAME` or `--data_path FOLDER` names; `demo` without either.

    Raises:
        UserError: If both are given.
        MissingFileError: If there is no prepared dataset, with those that there are.
    """
    if dataset is not None and data_path is not None:
        raise UserError("give one of --dataset NAME (a folder of data/) and --data_path FOLDER")
    path = data_path if data_path is not None else data_dir / (dataset or "demo")
    if not (path / "manifest.json").is_file():
        known = sorted(p.parent.name for p in path.parent.glob("*/manifest.json"))
        raise MissingFileError(
            f"{path} is not a prepared dataset (no manifest.json); {path.parent} has {known or 'none'}. "
            f"Make it with `python scripts/prepare.py SOURCE --input ... --name {path.name}`"
        )
    return load_dataset(path.resolve())
