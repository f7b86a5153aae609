"""A table of interactions, CSV, TSV or Parquet, whose columns are named by flags, and perhaps a table of items."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from seqrec.data.preparation import RawData
from seqrec.data.sources.cells import plain_ids
from seqrec.data.sources.checks import interactions
from seqrec.data.sources.reading import existing
from seqrec.data.sources.tables import require_columns
from seqrec.data.sources.tabular import Tabular, scan_any
from seqrec.data.sources.times import TimeColumn, Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile(Tabular):
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
    time_unit: Unit = "s"
    """Unit of a number since 1970, or iso for ISO 8601 texts, in UTC unless they name an offset, such as 2024-05-01
    12:30:00+02:00; ignored for a column of dates."""
    time_format: str | None = None
    """How other texts are written, as for strptime, for example "%d/%m/%Y %H:%M"."""
    rating_column: str | None = None
    """Column of the rating."""

    def read(self, scratch: Path) -> RawData:
        """Return the interactions and the items' text."""
        path = existing(self.input, "--input")
        frame = scan_any(path, scratch, self.header)
        given = (self.user_column, self.item_column, self.timestamp_column, self.rating_column)
        require_columns(frame, [name for name in given if name], path)
        times = None
        if self.timestamp_column is not None:
            times = TimeColumn(self.timestamp_column, self.time_unit, self.time_format, can_choose=True)
        frame = self.choose_rows(frame, path, [self.user_column, self.item_column])
        for name in (self.user_column, self.item_column):
            frame = plain_ids(frame, name, str(path))
        events = interactions(frame, path, self.user_column, self.item_column, times, self.rating_column)
        return RawData(events, self.read_item_text(scratch), origin=str(path))
