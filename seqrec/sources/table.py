"""A table of interactions, CSV, TSV or Parquet, whose columns are named by flags, and perhaps a table of items."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl

from seqrec.errors import UserError
from seqrec.preparation import Preparation, RawData
from seqrec.sources.reading import existing, interactions, require_columns, scan_table, settle, unique_items

UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Preparation):
    """A table of interactions and perhaps one of items."""

    kind: ClassVar[str] = "table"

    input: Path
    """Interactions: .csv, .tsv (either .gz too) or .parquet."""
    items: Path | None = None
    """Items: .csv, .tsv or .parquet; without it the dataset has no text."""
    user_column: str = "user_id"
    """Column of the user."""
    item_column: str = "item_id"
    """Column of the item."""
    timestamp_column: str | None = None
    """Column of the time; without it the order of the rows is the order in time."""
    time_unit: Literal["s", "ms", "us", "ns", "iso"] = "s"
    """Unit of a number since 1970, or iso for texts such as 2024-05-01 12:30:00; ignored for a column of dates."""
    rating_column: str | None = None
    """Column of the rating."""
    id_column: str | None = None
    """Column of the item id in the items' table; its first column by default."""

    def read(self, scratch: Path) -> RawData:
        """Return the interactions and the items' text."""
        path = existing(self.input, "--input")
        frame = scan_any(path, scratch)
        given = (self.user_column, self.item_column, self.timestamp_column, self.rating_column)
        require_columns(frame, [name for name in given if name], path)
        time = None if self.timestamp_column is None else self._seconds(frame, self.timestamp_column)
        rating = None if self.rating_column is None else pl.col(self.rating_column)
        named = frame.with_columns(user=pl.col(self.user_column), item=pl.col(self.item_column))
        events = interactions(named, path, 1 if path.suffix == ".parquet" else 2, time, rating)
        return RawData(events, self._read_items(scratch), origin=str(path))

    def _seconds(self, frame: pl.LazyFrame, column: str) -> pl.Expr:
        if frame.collect_schema()[column].is_temporal():
            return pl.col(column).cast(pl.Datetime("us")).dt.epoch("s")
        if self.time_unit == "iso":
            return pl.col(column).str.to_datetime(strict=False, time_unit="us").dt.epoch("s")
        number = pl.col(column).cast(pl.Int64, strict=False)
        return number if self.time_unit == "s" else number // UNITS[self.time_unit]

    def _read_items(self, scratch: Path) -> pl.DataFrame | None:
        if self.items is None:
            return None
        path = existing(self.items, "--items")
        frame = scan_any(path, scratch)
        key = self.id_column or frame.collect_schema().names()[0]
        require_columns(frame, [key], path)
        wanted = [key, *self.attribute_names]
        require_columns(frame, wanted, path)
        if len(wanted) > 1:
            frame = frame.select(wanted)
        renamed = frame.rename({key: "raw_id"}).with_columns(pl.col("raw_id").cast(pl.String))
        lists = [name for name, kind in renamed.collect_schema().items() if isinstance(kind, pl.List)]
        renamed = renamed.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join(" ") for name in lists)
        return unique_items(renamed.collect().select("raw_id", pl.exclude("raw_id")), path, 2)


def scan_any(path: Path, scratch: Path) -> pl.LazyFrame:
    """Return a table by the ending of its name; text files give str columns.

    Raises:
        UserError: If the ending is unknown or the file is faulty.
    """
    endings = [suffix for suffix in path.suffixes if suffix != ".gz"]
    ending = endings[-1] if endings else ""
    if ending == ".parquet":
        return settle(pl.scan_parquet(path), path, scratch)
    if ending not in (".csv", ".tsv", ".txt"):
        raise UserError(f"{path}: expected .csv, .tsv, .txt (tabs) or .parquet, perhaps .gz, got {ending!r}")
    return scan_table(path, "," if ending == ".csv" else "\t", scratch, quote=ending == ".csv")
