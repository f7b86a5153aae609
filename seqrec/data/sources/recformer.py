"""Recformer's own layout: `train.json`, `val.json`, `test.json`, `smap.json`, `meta_data.json`, perhaps `umap.json`.

train, val and test map a user to a list of item ids; smap maps a raw item key to its id, from 0 or from 1, whichever
its smallest value is; meta maps a raw item key to its title or to an object of attributes, whose order is kept; umap
maps a raw user key to the user's id. Items keep the order of their ids.

The split of a prepared dataset is leave-one-out, so the files' split is kept exactly when it is that one: each user of
val and test has a train list and one item in each of the two. `resplit` takes any other files: a user's sequence is
then what train, val and test hold of the user, in this order, and the last two items are held out again.

The layout of a pretraining corpus is another: `train.json` and `dev.json` are lists of sequences of raw item keys,
without users, and there is no smap. `sequences_file` reads one of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

from seqrec.basics.errors import UserError
from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources.json_text import read_json

Sequences = Mapping[Any, list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSplits(Preparation):
    """Recformer's finetune data."""

    kind: ClassVar[str] = "recformer"

    input: Path
    """Folder with the files."""
    resplit: bool = False
    """Join train, val and test of a user and hold out the last two items again."""
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
        meta = read_json(meta_path, "--meta_file")
        if not isinstance(smap, dict):
            raise UserError(f"{self.input / self.smap_file}: expected an object of item ids, got {smap!r:.80}")
        text = item_attributes(meta, smap, str(meta_path), self.attribute_names)
        return join_splits(splits, smap, umap, text, self.resplit, self.input)

    def _read_list(self) -> RawData:
        path = self.input / self.sequences_file
        sequences = read_json(path, "--sequences_file")
        if not isinstance(sequences, list) or not set(map(type, sequences)) <= {list}:
            raise UserError(f"{path}: expected a list of lists of item keys, got {type(sequences).__name__}")
        odd = [key for key in chain.from_iterable(sequences) if type(key) not in (str, int) or key == ""]
        if odd:
            raise UserError(f"{path}: expected item keys, texts or whole numbers, got {odd[0]!r:.80}")
        keys = list(map(str, chain.from_iterable(sequences)))  # some corpora hold numbers, metadata's keys are strings
        lengths = list(map(len, sequences))
        users = pl.Series(np.repeat(np.arange(len(lengths)), lengths)).cast(pl.String)
        meta_path = self.input / self.meta_file
        text = item_attributes(
            read_json(meta_path, "--meta_file"), dict.fromkeys(keys), str(meta_path), self.attribute_names
        )
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
    parts = [_flatten(sequences, keys, ids, f"{origin} {name}") for name, sequences in joined.items()]
    frame = pl.concat(parts)
    if umap:
        frame = frame.with_columns(pl.col("user").replace(_raw_users(umap, frame["user"].unique(), origin)))
    names = pl.DataFrame({"raw_id": keys})
    items = names if text is None else names.join(text, on="raw_id", how="left", maintain_order="left")
    return RawData(frame.lazy(), items, numbered=True, origin=str(origin))


def _raw_users(umap: Mapping[Any, int], ids: pl.Series, origin: Path) -> dict[str, str]:
    """Return the raw user of each id, as text.

    Raises:
        UserError: If umap gives an id to two users, a user twice, or lacks one of the ids: the text of an id may be
            another's raw user.
    """
    users = {str(number): str(raw) for raw, number in umap.items()}
    if not len(users) == len(set(users.values())) == len(umap):
        raise UserError(f"{origin}: umap gives one id to two users, or an id to each of two spellings of one user")
    lost = ids.filter(~ids.is_in(list(users)))
    if not lost.is_empty():
        raise UserError(
            f"{origin}: user {lost[0]!r} is out of range: umap numbers {len(users):,} users and this is none. Are "
            "all files from one preparation? Without the umap file, the ids are the users"
        )
    return users


def _check_leave_one_out(train: Sequences, val: Sequences, test: Sequences, origin: Path) -> None:
    cure = "add --resplit to join each user's lists and hold out the last two items again"
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
    first, last = smap[keys[0]], smap[keys[-1]]
    if first not in (0, 1) or last - first != len(keys) - 1 or len(set(smap.values())) < len(keys):
        raise UserError(
            f"{origin}: smap must number the {len(keys):,} items from 0 or 1 without gap or repeat, "
            f"its ids are {_short(first)}..{_short(last)}"
        )
    names = [str(key) for key in keys]
    if len(set(names)) < len(names) or "" in names:
        raise UserError(f"{origin}: smap holds an empty key, or one item as a number and as its digits")
    return names, np.arange(first, last + 1)


def _short(number: int) -> str:
    return f"{number}" if abs(number) < 10**20 else f"a number of {number.bit_length()} bits"


def _flatten(
    sequences: Sequences, keys: list[str], ids: np.ndarray[Any, np.dtype[np.int64]], origin: str
) -> pl.DataFrame:
    """Return user and item (raw keys) from a mapping of lists."""
    if not set(map(type, chain.from_iterable(sequences.values()))) <= {int}:
        raise UserError(f"{origin}: expected lists of whole numbers, got {_first_odd(sequences)}")
    for user, items in sequences.items():
        outside = next((item for item in items if not ids[0] <= item <= ids[-1]), None) if items else None
        if outside is not None:
            raise UserError(
                f"{origin}: item {_short(outside)} of user {user} is out of range: smap numbers {ids[0]}..{ids[-1]}"
            )
    lengths = np.fromiter(map(len, sequences.values()), dtype=np.int64, count=len(sequences))
    flat = np.fromiter(chain.from_iterable(sequences.values()), dtype=np.int64, count=int(lengths.sum()))
    names = [str(user) for user in sequences]
    if len(set(names)) < len(names) or "" in names:
        raise UserError(f"{origin}: holds an empty user, or one user as a number and as its digits")
    users = pl.Series(names, dtype=pl.String).gather(np.repeat(np.arange(len(lengths)), lengths))
    return pl.DataFrame({"user": users, "item": pl.Series(keys, dtype=pl.String).gather(flat - ids[0])})


def _first_odd(sequences: Sequences) -> str:
    user, item = next((u, i) for u, items in sequences.items() for i in items if type(i) is not int)
    return f"{item!r} for user {user!r}"


def item_attributes(
    meta: Any, wanted: Mapping[Any, Any], origin: str, attributes: tuple[str, ...] = ()
) -> pl.DataFrame:
    """Return raw_id and one str column per attribute, or per named one, for the wanted keys that meta has.

    Raises:
        UserError: If meta is not an object of titles or objects, or an attribute is neither text nor a list of texts.
    """
    if not isinstance(meta, dict):
        raise UserError(f"{origin}: expected an object that maps each item to its text, got {type(meta).__name__}")
    rows = {str(key): meta[str(key)] for key in wanted if str(key) in meta}
    odd = next((item for item in rows.items() if not isinstance(item[1], str | int | float | dict | None)), None)
    if odd:
        raise UserError(f"{origin}: item {odd[0]!r} must have a title or an object of attributes, got {odd[1]!r:.80}")
    objects = [value if isinstance(value, dict) else {"title": value} for value in rows.values()]
    table = attribute_table(objects, origin, attributes)
    if "raw_id" in table.columns:
        raise UserError(
            f"{origin}: an attribute is called 'raw_id', as the items' ids are: rename it, or choose others"
        )
    return table.insert_column(0, pl.Series("raw_id", list(rows), pl.String))


def attribute_table(objects: Sequence[Mapping[str, Any]], origin: str, wanted: tuple[str, ...] = ()) -> pl.DataFrame:
    """Return one str column per attribute that the objects have, or per wanted one of these; lists joined by blanks.

    Raises:
        UserError: If a value is an object or a list in a list.
    """
    offered = dict.fromkeys(chain.from_iterable(objects))
    names = [name for name in wanted if name in offered] if wanted else list(offered) or ["title"]
    columns = {name: [_text(value.get(name), name, origin) for value in objects] for name in names}
    return pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String), strict=True)


def _text(value: Any, name: str, origin: str) -> str | None:
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, list | dict) for part in parts):
        raise UserError(
            f"{origin}: {name!r} holds {str(parts[0])[:80]}, expected text or a list of texts; leave it out by naming "
            "others with --attributes"
        )
    if isinstance(value, list):
        return " ".join(str(part) for part in value)
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
