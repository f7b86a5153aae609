"""A table of interactions, CSV, TSV or Parquet, whose columns are named by flags, and perhaps a table of items."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl

from seqrec.preparation import RawData
from seqrec.sources.cells import plain_ids
from seqrec.sources.reading import existing, interactions, require_columns
from seqrec.sources.tabular import Tabular, scan_any

UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Tabular):
    """A table of interactions and perhaps one of items."""

    kind: ClassVar[str] = "table"

    input: Path
    """Interactions: .csv, .tsv (either .gz too) or .parquet."""
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

    def read(self, scratch: Path) -> RawData:
        """Return the interactions and the items' text."""
        path = existing(self.input, "--input")
        frame = scan_any(path, scratch, self.header)
        given = (self.user_column, self.item_column, self.timestamp_column, self.rating_column)
        require_columns(frame, [name for name in given if name], path)
        time = None if self.timestamp_column is None else self._seconds(frame, self.timestamp_column)
        rating = None if self.rating_column is None else pl.col(self.rating_column)
        frame = self.choose_rows(frame, path, [self.user_column, self.item_column])
        for name in (self.user_column, self.item_column):
            frame = plain_ids(frame, name, str(path))
        named = frame.with_columns(user=pl.col(self.user_column), item=pl.col(self.item_column))
        events = interactions(named, path, 1, time, rating)
        return RawData(events, self.read_item_text(scratch), origin=str(path))

    def _seconds(self, frame: pl.LazyFrame, column: str) -> pl.Expr:
        if frame.collect_schema()[column].is_temporal():
            return pl.col(column).cast(pl.Datetime("us")).dt.epoch("s")
        if self.time_unit == "iso":
            return pl.col(column).str.to_datetime(strict=False, time_unit="us").dt.epoch("s")
        number = pl.col(column).cast(pl.Int64, strict=False)
        return number if self.time_unit == "s" else number // UNITS[self.time_unit]
