"""Comments under the items of a prepared dataset, and who took up which: the folder `comments/` inside it.

It is a prepared dataset itself, NAME-comments, whose items are the comments, with their `text`, and whose histories are
the comments that a user took up: whatever encodes items encodes comments. Its users are those of the dataset, and after
them the users of comments alone; a history may be empty. Comments are numbered by item, then by time of publication,
then by position in the source. Beside its own files lie under.npy, the item of each comment, and where the source has
them published.npy and item_published.npy, when comments and items appeared.

Shapes: N items, C comments, U users of the dataset, V >= U users of the comments, E events with comments.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqrec.basics.arrays import hash_arrays
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.files import write_atomically, write_json
from seqrec.basics.opening import read_array
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.data.dataset_files import FORMAT, REPAIR, hash_item_ids, write_table

log = logging.getLogger(__name__)
COMMENTS = "comments"
"""Name of the folder inside a dataset's."""


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
    """Whose items are commented on."""
    own: Dataset
    """Whose items are the comments, and whose histories are what users took up: V users, E events."""
    under: NDArray[np.int32]
    """(C+1,) item of each comment, ascending."""
    published: NDArray[np.int64] | None
    """(C+1,) seconds; None where the source has no such times."""
    item_published: NDArray[np.int64] | None
    """(N+1,) seconds; None where the source has no such times."""

    @property
    def firsts(self) -> NDArray[np.int64]:
        """(N+2,): the comments of item i are firsts[i]:firsts[i+1]; there are none of item 0."""
        found = np.searchsorted(self.under[1:], np.arange(self.dataset.num_items + 2)) + 1
        return np.asarray(found, dtype=np.int64)

    @property
    def times(self) -> NDArray[np.int64]:
        """(E,) seconds of the events with comments."""
        assert self.own.timestamps is not None
        return self.own.timestamps


def write_comments(
    folder: Path, name: str, raw: RawComments, all_users: pl.Series, users: pl.Series, items: pl.Series
) -> None:
    """Write the comments of a dataset into a folder of it.

    What belongs to items and users that the dataset's filters left out is left out, too.

    Args:
        folder: To be created.
        name: Of the dataset of comments.
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
    new = raw.events["user"].unique(maintain_order=True)
    people = pl.concat([users, new.filter(~new.is_in(all_users.implode()))]).alias("raw_id").to_frame()
    events = (
        raw.events.join(codes, left_on="comment", right_on="raw_id", maintain_order="left")
        .join(people.with_row_index("row"), left_on="user", right_on="raw_id", maintain_order="left")
        .sort("row", "timestamp", maintain_order=True)
    )
    _say_removed("events with comments", len(raw.events) - len(events), "of users or items that were left out")
    counts = np.bincount(events["row"].to_numpy(), minlength=len(people))
    arrays: dict[str, NDArray[Any]] = {
        "offsets": np.append(0, np.cumsum(counts)).astype(np.int64),
        "items": events["code"].to_numpy().astype(np.int32),
        "timestamps": events["timestamp"].to_numpy().astype(np.int64),
    }
    beside: dict[str, NDArray[Any]] = {"under": np.append(0, kept["number"].to_numpy()).astype(np.int32)}
    if "published" in kept.columns:
        beside["published"] = np.append(0, kept["published"].to_numpy()).astype(np.int64)
    if raw.published is not None:
        times = numbers.join(raw.published, on="item", how="left", maintain_order="left")
        if missing := times["published"].null_count():
            item = times.filter(pl.col("published").is_null())["item"][0]
            raise UserError(f"{raw.origin}: {missing:,} items have no time of publication, such as {item!r}")
        beside["item_published"] = np.append(0, times["published"].to_numpy()).astype(np.int64)
    _write(folder, name, kept, people, arrays, beside)


def _write(
    folder: Path,
    name: str,
    comments: pl.DataFrame,
    people: pl.DataFrame,
    arrays: dict[str, NDArray[Any]],
    beside: dict[str, NDArray[Any]],
) -> None:
    """Write the dataset of comments: its tables, its sequences, and the arrays beside them."""
    (folder / "sequences").mkdir(parents=True)
    for place, array in ({f"sequences/{key}": array for key, array in arrays.items()} | beside).items():
        with write_atomically(folder / f"{place}.npy") as file:
            np.save(file, array)
    write_table(comments.select("raw_id", "text"), "item", 1, folder / "items.parquet")
    write_table(people, "user", 0, folder / "users.parquet")
    manifest = {
        "format": FORMAT,
        "name": name,
        "num_users": len(people),
        "num_items": len(comments),
        "num_interactions": len(arrays["items"]),
        "attributes": ["text"],
        "has_timestamps": True,
        "source": {"kind": "comments"},
        "item_ids_sha256": hash_item_ids(comments["raw_id"].to_list()),
        "sequences_sha256": hash_arrays(*arrays.values()),
        "beside": {key: hash_arrays(array) for key, array in beside.items()},
    }
    write_json(folder / "manifest.json", manifest)


def _say_removed(what: str, count: int, why: str) -> None:
    if count:
        log.info("%s %s %s are left out", f"{count:,}", what, why)


def load_comments(dataset: Dataset) -> Comments:
    """Return the comments of a dataset, memory-mapped.

    Raises:
        MissingFileError: If it has none.
        UserError: If its files are not what its manifests say.
    """
    folder = dataset.path / COMMENTS
    if not (folder / "manifest.json").is_file():
        raise MissingFileError(
            f"{dataset.path} has no comments: prepare it with `python scripts/prepare.py comments`, or `comments-demo`"
        )
    own = load_dataset(folder)
    hashes = own.manifest.get("beside")
    if not isinstance(hashes, dict) or "under" not in hashes:
        raise UserError(f"{folder / 'manifest.json'}: 'beside' is {str(hashes)[:80]}, expected hashes: {REPAIR}")
    arrays: dict[str, NDArray[Any]] = {}
    for key, rows in (("under", own), ("published", own), ("item_published", dataset)):
        if key in hashes:
            file, dtype = folder / f"{key}.npy", np.int32 if key == "under" else np.int64
            arrays[key] = array = read_array(file, REPAIR, mapped=True)
            if array.dtype != dtype or array.shape != (rows.num_items + 1,):
                raise UserError(
                    f"{file} holds {array.dtype} of shape {array.shape}, expected {np.dtype(dtype)} of shape "
                    f"({rows.num_items + 1},): {REPAIR}"
                )
            if hash_arrays(array) != hashes[key]:
                raise UserError(f"{file} has another sha256 than manifest.json says: {REPAIR}")
    return Comments(dataset, own, arrays["under"], arrays.get("published"), arrays.get("item_published"))


def load_publication(dataset: Dataset) -> NDArray[np.int64] | None:
    """Return when the items of a dataset appeared, (N+1,) seconds, or None where its source does not say."""
    return load_comments(dataset).item_published if (dataset.path / COMMENTS).is_dir() else None
