"""A table of interactions, CSV, TSV or Parquet, whose columns are named by flags, and perhaps a table of items."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from seqrec.basics.errors import UserError
from seqrec.data.preparation import RawData
from seqrec.data.sources.cells import join_lists, plain_ids
from seqrec.data.sources.checks import interactions, items_by_id
from seqrec.data.sources.reading import existing, place
from seqrec.data.sources.tables import LINE, require_columns
from seqrec.data.sources.tabular import Tabular, scan_any
from seqrec.data.sources.times import TimeColumn, Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile(Tabular):
    """A table of interactions and perhaps one of items."""

    kind: ClassVar[str] = "table"

    input: Path
    """Interactions: .csv, .tsv (either .gz too), .parquet, or a folder of .parquet files of the same columns."""
    user_column: str = "user_id"
    """Column of the user."""
    item_column: str = "item_id"
    """Column of the item."""
    timestamp_column: str | None = None
    """Column of the time; without it the order of the rows is the order in time."""
    time_unit: Unit = "s"
    """Unit of a number since 1970, or iso for ISO 8601 texts, in UTC unless they name an offset, such as 2024-05-01
    12:30:00+02:00; ignored for a column of dates."""
    time_format: str | None = None
    """How other texts are written, as for strptime, for example "%d/%m/%Y %H:%M"."""
    rating_column: str | None = None
    """Column of the rating."""
    merge_by: str | None = None
    """Column of the items' table: items with the same value in it are one item, with the texts of the first."""

    def __post_init__(self) -> None:
        super(TableFile, self).__post_init__()
        if self.merge_by is not None and (self.items is None or self.id_column is None):
            raise UserError(f"--merge_by {self.merge_by} is a column of the items' table: give --items and --id_column")

    def read(self, scratch: Path) -> RawData:
        """Return the interactions and the items' text."""
        path = existing(self.input, "--input", or_folder=True)
        frame = scan_any(path, scratch, self.header)
        given = (self.user_column, self.item_column, self.timestamp_column, self.rating_column)
        require_columns(frame, [name for name in given if name], path)
        times = None
        if self.timestamp_column is not None:
            times = TimeColumn(self.timestamp_column, self.time_unit, self.time_format, can_choose=True)
        frame = self.choose_rows(frame, path, [self.user_column, self.item_column])
        for name in (self.user_column, self.item_column):
            frame = plain_ids(frame, name, str(path))
        texts = None
        if self.merge_by is None:
            texts = self.read_item_text(scratch)
        else:
            frame, texts = self._merge(frame, path, self.merge_by, scratch)
        events = interactions(frame, path, self.user_column, self.item_column, times, self.rating_column)
        return RawData(events, texts, origin=str(path))

    def _merge(self, frame: pl.LazyFrame, path: Path, column: str, scratch: Path) -> tuple[pl.LazyFrame, pl.DataFrame]:
        """Return the rows with a column of the items' table in the place of their items, and the texts by it."""
        assert self.items is not None and self.id_column is not None
        where, key = existing(self.items, "--items"), self.id_column
        items = scan_any(where, scratch, self.items_header)
        require_columns(items, [key, column, *self.attribute_names], where)
        for name in (key, column):
            items = plain_ids(items, name, str(where))
        merged = items_by_id(items.select(LINE, key, column), key, [column], where)
        new = merged.select(pl.col("raw_id").alias(self.item_column), pl.col(column).cast(pl.String).alias("_merged"))
        rows = frame.with_columns(pl.col(self.item_column).cast(pl.String))
        rows = rows.join(new.lazy(), on=self.item_column, how="left", maintain_order="left")
        lost = rows.filter(pl.col("_merged").is_null()).select(LINE, self.item_column).head(1).collect()
        if len(lost):
            raise UserError(
                f"{place(path, lost[LINE][0])}: item {lost[self.item_column][0]!r} has no {column!r} in {where}"
            )
        others = [name for name in items.collect_schema().names() if name not in (key, column, LINE)]
        names = list(self.attribute_names) or others
        texts = items_by_id(items.select(LINE, column, *names), column, names, where, keep="first")
        return rows.with_columns(pl.col("_merged").alias(self.item_column)), join_lists(texts, names, str(where))
