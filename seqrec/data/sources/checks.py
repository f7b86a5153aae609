"""Checks of rows that a source has read: ids, times and ratings are there, items unique."""

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import polars as pl

from seqrec.basics.errors import UserError
from seqrec.data.sources.reading import place
from seqrec.data.sources.tables import LINE, row_fault
from seqrec.data.sources.times import TimeColumn

log = logging.getLogger(__name__)
EARLY = datetime(1980, 1, 1)
COARSER = {"ms": "s", "us": "ms", "ns": "us"}
"""Times earlier than this were perhaps in another unit."""


def interactions(
    frame: pl.LazyFrame,
    path: Path,
    user: str = "user",
    item: str = "item",
    times: TimeColumn | None = None,
    rating: str | None = None,
) -> pl.LazyFrame:
    """Return (user str, item str, timestamp Datetime in UTC, rating float64), the last two if asked for.

    Args:
        frame: Rows in file order, with LINE.
        path: The file, for errors.
        user: Column of the user.
        item: Column of the item.
        times: Column of the time.
        rating: Column of the rating, str or a number.

    Raises:
        UserError: If a column can't hold such values, or a row lacks its user or item or has no valid time or rating;
            names the line.
    """
    types = frame.collect_schema()
    read = {"user": _id(user), "item": _id(item)}
    source = {"user": user, "item": item}
    if times is not None:
        read["timestamp"], source["timestamp"] = times.read(types[times.column], path), times.column
    if rating is not None:
        kind = types[rating]
        if not (kind.is_numeric() or kind in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
            raise UserError(f"{path}: {rating!r} is a column of {kind}, expected numbers as ratings")
        number = pl.col(rating) if kind.is_numeric() else pl.col(rating).cast(pl.String)
        read["rating"], source["rating"] = number.cast(pl.Float64, strict=False).fill_nan(None), rating
    result = frame.select(**read)
    latest = [pl.col("timestamp").max().alias("latest")] if times is not None else []
    counts = result.select(pl.all().null_count(), *latest).collect(engine="streaming").row(0, named=True)
    for name in read:
        if counts[name]:
            used = list(dict.fromkeys(source.values()))
            where, row = row_fault(frame, path, read[name].is_null(), used)
            why = f": {times.fault(row[times.column])}" if name == "timestamp" and times is not None else ""
            raise UserError(f"{where}: no valid {name} in {str(row)[:200]}{why}")
    if times is not None and counts["latest"] is not None and counts["latest"] < EARLY and times.unit in COARSER:
        coarser = COARSER[times.unit]
        log.warning(
            "%s: read in %s, the latest time is %s; are they in %s?", path, times.unit, counts["latest"], coarser
        )
    return result


def _id(column: str) -> pl.Expr:
    """Return a column's ids as text, null where there is none: blanks alone are none."""
    text = pl.col(column).cast(pl.String)
    return pl.when(text.str.strip_chars() != "").then(text)


def items_by_id(frame: pl.LazyFrame, key: str, names: Sequence[str], path: Path, keep: str = "error") -> pl.DataFrame:
    """Return raw_id, unique, and the named attributes of rows with LINE.

    Args:
        frame: The rows.
        key: Column of the id.
        names: Columns of attributes.
        path: The file, for errors.
        keep: What to do about an id that occurs twice: error, or keep the first or the last.

    Raises:
        UserError: If an attribute is called raw_id, a row has no id, or an id occurs twice and keep is error; names
            both lines.
    """
    if "raw_id" in names:
        raise UserError(f"{path}: an attribute is called 'raw_id', as the items' ids are: rename it, or choose others")
    items = frame.select(LINE, _id(key).alias("raw_id"), *names).collect(engine="streaming")
    line = items[LINE]
    if items["raw_id"].null_count():
        raise UserError(f"{place(path, line.filter(items['raw_id'].is_null())[0])}: an item without id")
    if items["raw_id"].n_unique() < len(items):
        if keep == "error":
            twice = items["raw_id"].filter(items["raw_id"].is_duplicated())[0]
            lines = line.filter(items["raw_id"] == twice)
            raise UserError(f"{place(path, *lines.head(2))}: item id {twice!r} occurs twice; ids must be unique")
        items = items.unique("raw_id", keep="first" if keep == "first" else "last", maintain_order=True)
    return items.drop(LINE)
