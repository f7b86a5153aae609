"""Comments under the items of a prepared dataset, and who took up which: the folder `comments/` inside it.

comments.parquet (comment 1..C, raw_id, item, text), sorted by item, then time of publication, then position in the
source; users.parquet (user, raw_id) of those who have no event with an item; events/{offsets,comments,timestamps}.npy;
and where the source has them published.npy and item_published.npy, when comments and items appeared.

Shapes: N items, C comments, U users of the dataset, V - U users of comments alone, E events with comments.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.files import write_atomically
from seqrec.basics.opening import read_array
from seqrec.data.dataset import Dataset
from seqrec.data.dataset_files import REPAIR, read_table

log = logging.getLogger(__name__)
FOLDER = "comments"


@dataclass(frozen=True, slots=True)
class RawComments:
    """Comments of a source, by the source's ids; times are int64 seconds, no value is null."""

    comments: pl.DataFrame
    """raw_id str, unique; item str; text str; perhaps published, when it appeared."""
    events: pl.DataFrame
    """user str, comment str, timestamp: in source order."""
    published: pl.DataFrame | None = None
    """item str, unique, and published: when items appeared."""
    origin: str = "the comments"
    """The file that the events come from, for errors."""


@dataclass(frozen=True, slots=True)
class Comments:
    """The comments of a dataset. Rows 0 of what counts from 1 are padding and hold 0."""

    dataset: Dataset
    items: NDArray[np.int32]
    """(C+1,) item of each comment, ascending."""
    offsets: NDArray[np.int64]
    """(V+1,): user v took up comments offsets[v]:offsets[v+1]; those from U on are users of comments alone."""
    comments: NDArray[np.int32]
    """(E,) in 1..C, by user, then time, then position in the source."""
    timestamps: NDArray[np.int64]
    """(E,) seconds."""
    published: NDArray[np.int64] | None
    """(C+1,) seconds; None where the source has no such times."""
    item_published: NDArray[np.int64] | None
    """(N+1,) seconds; None where the source has no such times."""

    @property
    def num_comments(self) -> int:
        """C."""
        return len(self.items) - 1

    @property
    def num_users(self) -> int:
        """V."""
        return len(self.offsets) - 1

    @property
    def firsts(self) -> NDArray[np.int64]:
        """(N+2,): the comments of item i are firsts[i]:firsts[i+1]; there are none of item 0."""
        found = np.searchsorted(self.items[1:], np.arange(self.dataset.num_items + 2)) + 1
        return np.asarray(found, dtype=np.int64)

    def table(self) -> pl.DataFrame:
        """Return comments.parquet: `comment` 1..C in order, `raw_id`, `text`."""
        return _read_comments(self.dataset.path / FOLDER, self.num_comments)

    def user_table(self) -> pl.DataFrame:
        """Return `user` 0..V-1 in order and `raw_id`: the dataset's users, then those of comments alone."""
        known, V = self.dataset.user_table(), self.num_users
        file = self.dataset.path / FOLDER / "users.parquet"
        return pl.concat([known, read_table(file, "user", len(known), V - len(known), ("raw_id",))])


def _read_comments(folder: Path, num_comments: int) -> pl.DataFrame:
    return read_table(folder / "comments.parquet", "comment", 1, num_comments, ("raw_id", "text"))


def write_comments(
    folder: Path, raw: RawComments, all_users: pl.Series, users: pl.Series, items: pl.Series
) -> dict[str, Any]:
    """Write the comments of a dataset into its folder, and return what its manifest says of them.

    What belongs to items and users that the dataset's filters left out is left out, too.

    Args:
        folder: Of the dataset that is being written.
        raw: The source's comments.
        all_users: Raw ids of all users with an event with an item, those that were left out among them.
        users: (U,) raw ids of the dataset's users.
        items: (N,) raw ids of its items.

    Raises:
        UserError: If an event names a comment that is not there, or no comment is left.
    """
    numbers = pl.DataFrame({"item": items, "number": np.arange(1, len(items) + 1, dtype=np.int32)})
    keys = ["number", *(["published"] if "published" in raw.comments.columns else [])]
    kept = raw.comments.join(numbers, on="item", maintain_order="left").sort(keys, maintain_order=True)
    _say_removed("comments", len(raw.comments) - len(kept), "whose item is not in the dataset")
    if kept.is_empty():
        raise UserError(f"{raw.origin}: no comment is left, as none of their items is in the dataset")
    unknown = raw.events.join(raw.comments, left_on="comment", right_on="raw_id", how="anti", maintain_order="left")
    if len(unknown):
        user, comment = unknown.select("user", "comment").row(0)
        raise UserError(
            f"{raw.origin}: {len(unknown):,} events name comments that are not among the comments, such as "
            f"{comment!r} of user {user!r}: do both files write ids alike?"
        )
    codes = kept.select("raw_id", pl.int_range(1, pl.len() + 1, dtype=pl.Int32).alias("code"))
    new = pl.DataFrame({"user": raw.events["user"].unique(maintain_order=True)}).filter(
        ~pl.col("user").is_in(all_users.implode())
    )
    people = pl.DataFrame({"user": pl.concat([users.alias("user"), new["user"]])}).with_row_index("row")
    events = (
        raw.events.join(codes, left_on="comment", right_on="raw_id", maintain_order="left")
        .join(people, on="user", maintain_order="left")
        .sort("row", "timestamp", maintain_order=True)
    )
    _say_removed("events with comments", len(raw.events) - len(events), "of users or items that were left out")
    counts = np.bincount(events["row"].to_numpy(), minlength=len(people))
    arrays: dict[str, NDArray[Any]] = {
        "items": np.append(0, kept["number"].to_numpy()).astype(np.int32),
        "events/offsets": np.append(0, np.cumsum(counts)).astype(np.int64),
        "events/comments": events["code"].to_numpy().astype(np.int32),
        "events/timestamps": events["timestamp"].to_numpy().astype(np.int64),
    }
    if "published" in kept.columns:
        arrays["published"] = np.append(0, kept["published"].to_numpy()).astype(np.int64)
    if raw.published is not None:
        times = numbers.join(raw.published, on="item", how="left", maintain_order="left")
        if missing := times["published"].null_count():
            item = times.filter(pl.col("published").is_null())["item"][0]
            raise UserError(f"{raw.origin}: {missing:,} items have no time of publication, such as {item!r}")
        arrays["item_published"] = np.append(0, times["published"].to_numpy()).astype(np.int64)
    target = folder / FOLDER
    (target / "events").mkdir(parents=True)
    for name, array in arrays.items():
        with write_atomically(target / f"{name}.npy") as file:
            np.save(file, array)
    tables = {
        "comments": kept.select(codes["code"].alias("comment"), "raw_id", "text"),
        "users": new.select((pl.int_range(pl.len(), dtype=pl.Int32) + len(users)).alias("user"), raw_id="user"),
    }
    for name, table in tables.items():
        with write_atomically(target / f"{name}.parquet") as file:
            table.write_parquet(file, compression="zstd", compression_level=3, row_group_size=1 << 20)
    return {
        "num_comments": len(kept),
        "num_users": len(people),
        "num_events": len(events),
        "has_published": "published" in arrays,
        "has_item_published": "item_published" in arrays,
        "sha256": _hash(arrays),
    }


def _say_removed(what: str, count: int, why: str) -> None:
    if count:
        log.info("%s %s %s are left out", f"{count:,}", what, why)


def _hash(arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def load_comments(dataset: Dataset) -> Comments:
    """Return the comments of a dataset, memory-mapped.

    Raises:
        MissingFileError: If it has none.
        UserError: If its files are not what its manifest says.
    """
    found = dataset.manifest.get("comments")
    if not isinstance(found, dict):
        raise MissingFileError(
            f"{dataset.path} has no comments: prepare it with `python scripts/prepare.py comments`, or `comments-demo`"
        )
    try:
        C, V, E = (int(found[f"num_{name}"]) for name in ("comments", "users", "events"))
        has_published, has_item_published = bool(found["has_published"]), bool(found["has_item_published"])
        expected = str(found["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{dataset.path / 'manifest.json'}: 'comments' is incomplete ({error}): {REPAIR}") from error
    shapes: dict[str, tuple[int, type[np.generic]]] = {
        "items": (C + 1, np.int32),
        "events/offsets": (V + 1, np.int64),
        "events/comments": (E, np.int32),
        "events/timestamps": (E, np.int64),
    }
    shapes |= {"published": (C + 1, np.int64)} if has_published else {}
    shapes |= {"item_published": (dataset.num_items + 1, np.int64)} if has_item_published else {}
    arrays = {}
    for name, (size, dtype) in shapes.items():
        file = dataset.path / FOLDER / f"{name}.npy"
        arrays[name] = array = read_array(file, REPAIR, mapped=True)
        if array.dtype != dtype or array.shape != (size,):
            raise UserError(
                f"{file} holds {array.dtype} of shape {array.shape} where manifest.json says {np.dtype(dtype)} of "
                f"shape ({size},): {REPAIR}"
            )
    if _hash(arrays) != expected:
        raise UserError(f"{dataset.path / FOLDER}: the arrays' sha256 is not that of manifest.json: {REPAIR}")
    return Comments(
        dataset,
        arrays["items"],
        arrays["events/offsets"],
        arrays["events/comments"],
        arrays["events/timestamps"],
        arrays.get("published"),
        arrays.get("item_published"),
    )
