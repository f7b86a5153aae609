"""The atomic files of RecBole and UniSRec: tab-separated, the header is `name:type`.

A folder holds either `*.train.inter`, `*.valid.inter`, `*.test.inter` (any of them) with rows of user, history
(`item_id_list`, ids separated by blanks) and target (`item_id`), or one `*.inter` with rows of user, item and
perhaps rating and timestamp. Beside them, each optional:

- `*.item2index` (raw id, index): the item numbering; interactions are then by index and `.text` by raw id.
- `*.user2index` (raw id, index): the users' raw ids.
- `*.item` (item_id and attributes, by index): the numbering as well when its ids are whole numbers in order.
- `*.text` (raw id, text): one attribute, called `title` here so that `--attributes title` means it.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources.checks import interactions, items_by_id
from seqrec.data.sources.reading import existing, place
from seqrec.data.sources.tables import LINE, require_columns, require_distinct, scan_table
from seqrec.data.sources.tabular import read_items
from seqrec.data.sources.times import TimeColumn

log = logging.getLogger(__name__)
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Atomic(Preparation):
    """RecBole and UniSRec atomic files."""

    kind: ClassVar[str] = "atomic"

    input: Path
    """Folder with the .inter files."""
    items: Path | None = None
    """Items by raw id in place of the .item or .text file: u.item, movies.dat, .csv, .tsv, .parquet, .json or .txt,
    as `table --help` describes them."""

    def read(self, scratch: Path) -> RawData:
        """Return the interactions and the items."""
        if not self.input.is_dir():
            raise MissingFileError(f"--input {self.input} is not a folder")
        files = sorted(self.input.glob("*.inter"))
        if not files:
            raise MissingFileError(f"--input {self.input}: no .inter file in it")
        split = {name: path for name in SPLITS for path in files if path.name.endswith(f".{name}.inter")}
        if split:
            events, origin = read_histories(split, scratch), next(reversed(split.values()))
        else:
            origin = files[0]
            events = _read_rows(origin, scratch)
        numbering, users = _optional(self.input, "item2index"), _optional(self.input, "user2index")
        if users:
            events = _rename(events, "user", _read_index(users, scratch), origin, users)
        items, numbered = self._items(numbering, scratch)
        if numbering:
            events = _rename(events, "item", _read_index(numbering, scratch), origin, numbering)
        return RawData(events, items, numbered, str(origin))

    def _items(self, numbering: Path | None, scratch: Path) -> tuple[pl.DataFrame | None, bool]:
        attributes = _optional(self.input, "item")
        text = _optional(self.input, "text")
        if self.items is not None:
            return read_items(existing(self.items, "--items"), scratch, wanted=self.attribute_names), False
        if text:
            frame = _scan(text, ("item_id", "text"), scratch).rename({"text": "title"})
            table = items_by_id(frame, "item_id", ["title"], text)
        elif attributes:
            frame = _scan(attributes, ("item_id",), scratch)
            offered = [name for name in frame.collect_schema().names() if name not in ("item_id", LINE)]
            table = items_by_id(frame, "item_id", self.attribute_names or offered, attributes)
        else:
            table = None
        if numbering is None:
            return table, bool(attributes) and table is not None and _in_order(table["raw_id"])
        index = _read_index(numbering, scratch)
        if table is None:
            return index.select("raw_id"), True
        if not text:  # a .item file is keyed by index
            table = index.join(table.rename({"raw_id": "index"}), on="index", maintain_order="left").drop("index")
        return index.select("raw_id").join(table, on="raw_id", how="left", maintain_order="left"), True


def read_histories(split: dict[str, Path], scratch: Path) -> pl.LazyFrame:
    """Return user and item of each user's longest row, history then target; test wins among equals.

    Every other row of the user must be a beginning of that one. Files that cut histories at a length shift the
    window instead: for users at that length the valid row may start one item earlier, and the train rows, which
    may lie anywhere before, are not checked.

    Raises:
        UserError: If a row contradicts the longest one.
    """
    rows = pl.concat([_read_split(path, rank, scratch) for rank, path in enumerate(split.values())]).collect()
    best = rows.sort("length", "rank", LINE, descending=[True, True, False], maintain_order=True)
    best = best.unique("user", keep="first", maintain_order=True)
    cut = int(best["length"].max() or 0)  # type: ignore[arg-type]
    best_rows = best.select("user", whole=pl.col("sequence") + " ", whole_length="length", best_rank="rank")
    joined = rows.join(best_rows, on="user", how="left", maintain_order="left")
    begins = pl.col("whole").str.starts_with(pl.col("sequence") + " ")
    shifted = pl.col("whole").str.starts_with(pl.col("sequence").str.replace(r"^\S+ ", "") + " ")
    at_cut = pl.col("whole_length") == cut
    earlier = at_cut & ((pl.col("rank") < pl.col("best_rank") - 1) | shifted)
    wrong = joined.filter(~(begins | earlier))
    if not wrong.is_empty():
        path = split[list(split)[wrong["rank"][0]]]
        raise UserError(
            f"{place(path, wrong[LINE][0])}: user {wrong['user'][0]!r} has {wrong['sequence'][0][:80]!r}, "
            f"which is no beginning of the longest row {wrong['whole'][0][:80]!r}: are the files from one preparation?"
        )
    order = rows.group_by("user", maintain_order=True).agg().select("user")
    return (
        order.join(best, on="user", how="left", maintain_order="left")
        .lazy()
        .select("user", item=pl.col("sequence").str.split(" "))
        .explode("item")
    )


def _read_split(path: Path, rank: int, scratch: Path) -> pl.LazyFrame:
    named = _scan(path, ("user_id", "item_id_list", "item_id"), scratch)
    events = interactions(named, path, "user_id", "item_id")
    sequence = pl.concat_str("item_id_list", "item_id", separator=" ", ignore_nulls=True)
    sequence = sequence.str.replace_all(r"\s+", " ").str.strip_chars()
    rows = pl.concat([events.select("user"), named.select(LINE, sequence=sequence)], how="horizontal")
    length = pl.col("sequence").str.count_matches(" ", literal=True)
    return rows.select("user", LINE, "sequence", length=length, rank=pl.lit(rank))


def _read_rows(path: Path, scratch: Path) -> pl.LazyFrame:
    frame = _scan(path, ("user_id", "item_id"), scratch)
    names = frame.collect_schema().names()
    times = TimeColumn("timestamp") if "timestamp" in names else None
    return interactions(frame, path, "user_id", "item_id", times, "rating" if "rating" in names else None)


def _scan(path: Path, columns: tuple[str, ...], scratch: Path) -> pl.LazyFrame:
    """Return a table whose columns are called by what is before the colon of each name."""
    frame = scan_table(path, "\t", scratch, quote=False)
    names = {name: name.split(":")[0] for name in frame.collect_schema().names()}
    require_distinct(path, list(names.values()))
    frame = frame.rename(names)
    require_columns(frame, columns, path)
    return frame


def _read_index(path: Path, scratch: Path) -> pl.DataFrame:
    """Return raw_id and index (str, 0.. in order), in order of index."""
    frame = scan_table(path, "\t", scratch, quote=False, columns=("raw_id", "index"))
    table = items_by_id(frame.rename({"raw_id": "_raw"}), "_raw", ["index"], path)
    table = table.with_columns(number=pl.col("index").cast(pl.Int64, strict=False))
    if table["number"].null_count() or table["number"].n_unique() < len(table):
        bad = table.filter(pl.col("number").is_null() | pl.col("number").is_duplicated()).row(0)
        raise UserError(f"{path}: index {bad[1]!r} of {bad[0]!r} is no whole number or occurs twice")
    return table.sort("number").select("raw_id", "index")


def _rename(frame: pl.LazyFrame, column: str, index: pl.DataFrame, origin: Path, numbering: Path) -> pl.LazyFrame:
    """Replace indices by raw ids.

    Raises:
        UserError: If an index is not in the file: as a text of digits it could be another's raw id.
    """
    table = index.lazy().rename({"index": column, "raw_id": "_raw"})
    joined = frame.join(table, on=column, how="left", maintain_order="left")
    lost = joined.filter(pl.col("_raw").is_null()).head(1).collect()
    if not lost.is_empty():
        who = (
            f"item {lost['item'][0]!r} of user {lost['user'][0]!r}" if column == "item" else f"user {lost['user'][0]!r}"
        )
        raise UserError(
            f"{origin}: {who} is out of range: {numbering.name} numbers {len(index):,} {column}s and this is none of "
            f"them. Are both files from one preparation? If the .inter files hold raw ids, move {numbering.name} away"
        )
    return joined.with_columns(pl.col("_raw").alias(column)).drop("_raw")


def _optional(folder: Path, suffix: str) -> Path | None:
    found = sorted(folder.glob(f"*.{suffix}"))
    if len(found) > 1:
        raise UserError(f"{folder} holds several .{suffix} files: {', '.join(path.name for path in found)}; keep one")
    return found[0] if found else None


def _in_order(ids: pl.Series) -> bool:
    numbers = ids.cast(pl.Int64, strict=False)
    return numbers.null_count() == 0 and numbers.is_sorted()
