"""The layouts that HLLM and PerSRec publish: PixelRec and Amazon Books as CSV, MerRec and EB-NeRD as lists in Parquet.

CSV has a row per event: `item_id`, `user_id` and `timestamp` in seconds, and texts beside an `item_id`. Parquet has a
row per user: `user_id` and the lists `object_id` and `event_time`, and texts beside an `object_id`, whatever the order
of the rows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from seqrec.basics.errors import UserError
from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources.checks import interactions
from seqrec.data.sources.reading import existing
from seqrec.data.sources.tables import require_columns, row_fault
from seqrec.data.sources.tabular import ending, read_items, scan_any
from seqrec.data.sources.times import TimeColumn

LISTS = ("object_id", "event_time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hllm(Preparation):
    """Events and texts as HLLM and PerSRec publish them: PixelRec, Amazon Books, MerRec, EB-NeRD."""

    kind: ClassVar[str] = "hllm"

    input: Path
    """Events: a .csv of item_id, user_id, timestamp, or a .parquet of user_id and the lists object_id, event_time."""
    items: Path | None = None
    """Texts: a .csv with item_id, or a .parquet with object_id; by default the file of that name in a folder
    information/ beside the input's, where there is one."""

    def read(self, scratch: Path) -> RawData:
        """Return the events, and the items' texts."""
        path = existing(self.input, "--input")
        is_lists = ending(path) == ".parquet"
        frame = scan_any(path, scratch)
        item, time = LISTS if is_lists else ("item_id", "timestamp")
        require_columns(frame, ["user_id", item, time], path)
        if is_lists:
            frame = explode_lists(frame, path, list(LISTS))
        events = interactions(frame, path, "user_id", item, TimeColumn(time))
        return RawData(events, self._read_texts(path, item, scratch), origin=str(path))

    def _read_texts(self, path: Path, key: str, scratch: Path) -> pl.DataFrame | None:
        items = self.items
        if items is None:
            folder = path.absolute().parent.parent / "information"
            items = next(
                (file for end in (".csv", ".parquet") if (file := folder / f"{path.stem}{end}").is_file()), None
            )
            if items is None:
                return None
        return read_items(existing(items, "--items"), scratch, key, self.attribute_names)


def explode_lists(frame: pl.LazyFrame, path: Path, names: list[str]) -> pl.LazyFrame:
    """Return a row per element of lists that stand side by side; those of one row must be equally long.

    Raises:
        UserError: If a column holds no lists, or two lists of a row differ in length; names the row.
    """
    types = frame.collect_schema()
    for name in names:
        if not isinstance(types[name], pl.List):
            raise UserError(f"{path}: {name!r} is a column of {types[name]}, expected a list for each user")
    lengths = [pl.col(name).list.len().fill_null(0) for name in names]
    uneven = pl.any_horizontal(length != lengths[0] for length in lengths[1:])
    if frame.select(uneven.any()).collect(engine="streaming").item():
        where, row = row_fault(frame, path, uneven, names)
        told = ", ".join(f"{name!r} {len(row[name] or [])}" for name in names)  # type: ignore[arg-type]
        raise UserError(f"{where}: lists of one user must be equally long, these have {told} elements")
    return frame.filter(lengths[0] > 0).explode(names)
