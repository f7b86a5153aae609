"""Recformer's own layout: `train.json`, `val.json`, `test.json`, `smap.json`, `meta_data.json`, perhaps `umap.json`.

train, val and test map a user to a list of item ids; smap maps a raw item key to its id, from 0 or from 1, whichever
its smallest value is; meta maps a raw item key to its title or to an object of attributes, whose order is kept; umap
maps a raw user key to the user's id. Items keep the order of their ids.

The split of a prepared dataset is leave-one-out, so the files' split is kept exactly when it is that one: each user of
val and test has a train list and one item in each of the two. `resplit` takes any other files: a user's sequence is
then what train, val and test hold of the user, in this order, and the last two items are held out anew.

The layout of a pretraining corpus is another: `train.json` and `dev.json` are lists of sequences of raw item keys,
without users, and there is no smap. `sequences_file` reads one of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

from seqrec.errors import UserError
from seqrec.preparation import Preparation, RawData
from seqrec.sources.reading import read_json

Sequences = Mapping[Any, list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recformer(Preparation):
    """Recformer's finetune data."""

    kind: ClassVar[str] = "recformer"

    input: Path
    """Folder with the files."""
    resplit: bool = False
    """Join train, val and test of a user and hold out the last two items anew."""
    train_file: str = "train.json"
    """Training sequences."""
    val_file: str = "val.json"
    """Validation items."""
    test_file: str = "test.json"
    """Test items."""
    smap_file: str = "smap.json"
    """Raw item key to item id."""
    meta_file: str = "meta_data.json"
    """Raw item key to text."""
    umap_file: str = "umap.json"
    """Raw user key to user id; used where it exists."""
    sequences_file: str = ""
    """A pretraining corpus' list of sequences, such as train.json or dev.json; read instead of all but meta_file."""

    def read(self, scratch: Path) -> RawData:
        """Return the sequences and the items' text."""
        if self.sequences_file:
            return self._read_list()
        splits = {
            name: read_json(self.input / name, f"--{flag}")
            for flag, name in (
                ("train_file", self.train_file),
                ("val_file", self.val_file),
                ("test_file", self.test_file),
            )
        }
        smap = read_json(self.input / self.smap_file, "--smap_file")
        umap_path = self.input / self.umap_file
        umap = read_json(umap_path, "--umap_file") if umap_path.is_file() else {}
        meta_path = self.input / self.meta_file
        text = item_attributes(read_json(meta_path, "--meta_file"), smap, str(meta_path))
        return join_splits(splits, smap, umap, text, self.resplit, self.input)

    def _read_list(self) -> RawData:
        path = self.input / self.sequences_file
        sequences = read_json(path, "--sequences_file")
        if not isinstance(sequences, list) or not set(map(type, sequences)) <= {list}:
            raise UserError(f"{path}: expected a list of lists of item keys, got {type(sequences).__name__}")
        keys = list(map(str, chain.from_iterable(sequences)))  # some corpora hold numbers, metadata's keys are strings
        lengths = list(map(len, sequences))
        users = pl.Series(np.repeat(np.arange(len(lengths)), lengths)).cast(pl.String)
        meta_path = self.input / self.meta_file
        text = item_attributes(read_json(meta_path, "--meta_file"), dict.fromkeys(keys), str(meta_path))
        return RawData(pl.LazyFrame({"user": users, "item": keys}), text, origin=str(path))


def join_splits(
    splits: Mapping[str, Sequences],
    smap: Mapping[Any, int],
    umap: Mapping[Any, int],
    text: pl.DataFrame | None,
    resplit: bool,
    origin: Path,
) -> RawData:
    """Return raw data from train, val and test (by their names, in this order) and the numberings.

    Raises:
        UserError: If the split is not leave-one-out and resplit is not set, or an id is not in smap.
    """
    for name, content in {**splits, "smap": smap, "umap": umap}.items():
        values = {list} if name in splits else {int}
        if not isinstance(content, dict) or not set(map(type, content.values())) <= values:
            raise UserError(f"{origin} {name}: expected an object that maps each key to its {values.pop().__name__}")
    train, val, test = splits.values()
    if val == test and not train.keys() & val.keys():
        joined = dict(zip(list(splits)[:2], (train, val), strict=True))  # split by user: test repeats val
    else:
        joined = dict(splits)
    if not resplit:
        _check_leave_one_out(train, val, test, origin)
    keys, ids = _numbering(smap, origin)
    users = {str(number): str(raw) for raw, number in umap.items()}
    parts = [_flatten(sequences, keys, ids, f"{origin} {name}") for name, sequences in joined.items()]
    frame = pl.concat(parts).with_columns(pl.col("user").replace(users) if users else pl.col("user"))
    names = pl.DataFrame({"raw_id": keys})
    items = names if text is None else names.join(text, on="raw_id", how="left", maintain_order="left")
    return RawData(frame.lazy(), items, numbered=True, origin=str(origin))


def _check_leave_one_out(train: Sequences, val: Sequences, test: Sequences, origin: Path) -> None:
    cure = "add --resplit to join each user's lists and hold out the last two items anew"
    for name, held in (("val", val), ("test", test)):
        missing = next((user for user in held if not train.get(user)), None)
        if missing is not None:
            raise UserError(f"{origin}: not leave-one-out: user {missing!r} is in {name} but not in train; {cure}")
        long = next((user for user, items in held.items() if len(items) != 1), None)
        if long is not None:
            raise UserError(
                f"{origin}: not leave-one-out: {name} has {len(held[long])} items of user {long!r}, expected 1; {cure}"
            )
    if val.keys() != test.keys():
        lone = next(iter(val.keys() ^ test.keys()))
        raise UserError(f"{origin}: not leave-one-out: user {lone!r} is in only one of val and test; {cure}")
    whole = next((user for user, items in train.items() if user not in val and len(items) > 2), None)
    if whole is not None:
        raise UserError(
            f"{origin}: not leave-one-out: user {whole!r} has {len(train[whole])} items in train, none in val; {cure}"
        )


def _numbering(smap: Mapping[Any, int], origin: Path) -> tuple[list[str], np.ndarray[Any, np.dtype[np.int64]]]:
    """Return raw keys and ids, both in order of id."""
    if not smap:
        raise UserError(f"{origin}: smap holds no items")
    keys = sorted(smap, key=lambda key: smap[key])
    ids = np.fromiter((smap[key] for key in keys), dtype=np.int64, count=len(keys))
    if ids[0] not in (0, 1) or (np.diff(ids) != 1).any():
        raise UserError(
            f"{origin}: smap must number the {len(ids):,} items from 0 or 1 without gap or repeat, "
            f"its ids are {ids[0]}..{ids[-1]}"
        )
    return [str(key) for key in keys], ids


def _flatten(
    sequences: Sequences, keys: list[str], ids: np.ndarray[Any, np.dtype[np.int64]], origin: str
) -> pl.DataFrame:
    """Return user and item (raw keys) from a mapping of lists."""
    if not set(map(type, chain.from_iterable(sequences.values()))) <= {int}:
        raise UserError(f"{origin}: expected lists of whole numbers, got {_first_odd(sequences)}")
    lengths = np.fromiter(map(len, sequences.values()), dtype=np.int64, count=len(sequences))
    flat = np.fromiter(chain.from_iterable(sequences.values()), dtype=np.int64, count=int(lengths.sum()))
    users = pl.Series([str(user) for user in sequences], dtype=pl.String).gather(
        np.repeat(np.arange(len(lengths)), lengths)
    )
    outside = (flat < ids[0]) | (flat > ids[-1])
    if outside.any():
        place = int(outside.argmax())
        raise UserError(
            f"{origin}: item {flat[place]} of user {users[place]} is out of range: smap numbers {ids[0]}..{ids[-1]}"
        )
    return pl.DataFrame({"user": users, "item": pl.Series(keys, dtype=pl.String).gather(np.searchsorted(ids, flat))})


def _first_odd(sequences: Sequences) -> str:
    user, item = next((u, i) for u, items in sequences.items() for i in items if type(i) is not int)
    return f"{item!r} for user {user!r}"


def item_attributes(meta: Any, wanted: Mapping[Any, Any], origin: str) -> pl.DataFrame:
    """Return raw_id and one str column per attribute for the wanted keys that meta has.

    Raises:
        UserError: If meta is not an object of titles or objects.
    """
    if not isinstance(meta, dict):
        raise UserError(f"{origin}: expected an object that maps each item to its text, got {type(meta).__name__}")
    rows = {str(key): meta[str(key)] for key in wanted if str(key) in meta}
    odd = next((item for item in rows.items() if not isinstance(item[1], str | float | dict | None)), None)
    if odd:
        raise UserError(f"{origin}: item {odd[0]!r} must have a title or an object of attributes, got {odd[1]!r}")
    objects = {key: value if isinstance(value, dict) else {"title": value} for key, value in rows.items()}
    names = list(dict.fromkeys(chain.from_iterable(objects.values()))) or ["title"]
    columns = {name: [_text(value.get(name)) for value in objects.values()] for name in names}
    return pl.DataFrame(
        {"raw_id": list(objects), **columns}, schema_overrides=dict.fromkeys(["raw_id", *names], pl.String)
    )


def _text(value: Any) -> str | None:
    if isinstance(value, list):
        return " ".join(str(part) for part in value)
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
