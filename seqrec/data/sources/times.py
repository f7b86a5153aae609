"""Times of a source: numbers since 1970, texts, dates. They keep the source's resolution, and are sorted by it."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl

from seqrec.basics.errors import UserError

Unit = Literal["s", "ms", "us", "ns", "iso"]
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
FIRST, LAST = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
"""The same, since 1970."""
SECONDS_PER_YEAR = 31_556_952
ISO = (
    r"^\s*(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2})?(\.\d{1,9})?)?"  # date, hour and minute, second, fraction
    r"\s*(?:[Zz]|UTC|([+-]\d{2}):?(\d{2})?)?\s*$"  # hours and minutes ahead of UTC
)


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """A column of times and how it is to be read."""

    column: str
    unit: Unit = "s"
    """Unit of a number since 1970, or iso for ISO 8601 texts; of no account for a column of dates."""
    format: str | None = None
    """How texts are written, as for strptime; then the unit is of no account."""
    can_choose: bool = False
    """Whether the source has --time_unit and --time_format, for messages."""

    def read(self, kind: pl.DataType, path: Path) -> pl.Expr:
        """Return the times of a column of that type as Datetime in UTC, null where one can't be read.

        Raises:
            UserError: If a column of that type can't hold such times.
        """
        column = pl.col(self.column)
        if isinstance(kind, pl.Date | pl.Datetime):
            time = column.cast(pl.Datetime("us")) if isinstance(kind, pl.Date) else column.dt.replace_time_zone(None)
            if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
                time = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
            is_ns = isinstance(kind, pl.Datetime) and kind.time_unit == "ns"  # cannot leave the years 1677 to 2262
            return time if is_ns else pl.when(time.is_between(FIRST, LAST)).then(time)
        is_text = kind in (pl.String, pl.Categorical, pl.Enum)
        if is_text:
            column = column.cast(pl.String)
        if is_text and self.format is not None:
            time = _formatted(column, self.format)
            return pl.when(time.is_between(FIRST, LAST)).then(time)
        if is_text and self.unit == "iso":
            return _iso(column)
        if self.format is not None or self.unit == "iso" or not (is_text or kind.is_numeric() or kind == pl.Null):
            way = f"--time_unit {self.unit}" if self.format is None else f"--time_format {self.format!r}"
            raise UserError(f"{path}: {self.column!r} is a column of {kind}, which can't be read as times by {way}")
        return _number(column, kind, self.unit)

    def fault(self, value: Any) -> str:
        """Return why a value is no time, and what to do."""
        if value is None:
            return "the time is missing"
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if isinstance(value, str) and (self.format is not None or self.unit == "iso"):
            wanted = repr(self.format) if self.format is not None else "an ISO time such as 2024-05-01 12:30:00+02:00"
            if self.format is not None:
                return f"expected a time like {wanted}, by --time_format"
            return f"expected {wanted}; --time_format reads others, for example --time_format '%d/%m/%Y %H:%M'"
        if not abs(number) < float("inf"):
            also = "; --time_unit iso or --time_format read texts" if self.can_choose else ""
            return f"expected a number, time in {self.unit} since 1970{also}"
        years = {unit: 1970 + number / per / SECONDS_PER_YEAR for unit, per in PER_SECOND.items()}
        likely = next((unit for unit, year in years.items() if 1971 < year < 2100), None)
        cure = ""
        if likely is not None:
            cure = f"; it is a time of {years[likely]:.0f} in {likely}: "
            cure += f"give --time_unit {likely}" if self.can_choose else "divide it, or use the source `table`"
        return f"read in {self.unit}, it lies in the year {years.get(self.unit, years['s']):,.0f}{cure}"


def _number(column: pl.Expr, kind: pl.DataType, unit: Unit) -> pl.Expr:
    """Return numbers since 1970 as Datetime, null where one is not a number or lies outside the years 1 to 9999."""
    per = PER_SECOND[unit]
    steps = max(per, 10**6)  # of the result, per second
    low, high = max(FIRST_SECOND * per, -(2**63)), min(LAST_SECOND * per, 2**63 - 1)
    whole, exact = column.cast(pl.Int64, strict=False), column.cast(pl.Float64, strict=False)
    ticks: pl.Expr = pl.when(whole.is_between(low, high)).then(whole * (steps // per))
    if not kind.is_integer():
        # Only a whole number casts from text, but a float would lose its fraction.
        scaled = (exact * (steps // per)).round().cast(pl.Int64, strict=False)
        read = pl.when(exact.is_between(low, high)).then(scaled)
        ticks = pl.coalesce(ticks, read) if kind in (pl.String, pl.Categorical, pl.Enum) else read
    return ticks.cast(pl.Datetime("ns" if unit == "ns" else "us"))


def _iso(text: pl.Expr) -> pl.Expr:
    parts = text.str.extract_groups(ISO).struct
    clock = parts.field("2").fill_null("00:00") + parts.field("3").fill_null(":00") + parts.field("4").fill_null("")
    time = (parts.field("1") + " " + clock).str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    hours = parts.field("5").fill_null("+0")
    minutes = hours.str.slice(0, 1) + parts.field("6").fill_null("0")
    ahead = hours.cast(pl.Int64) * 60 + minutes.cast(pl.Int64)
    time = time - pl.duration(minutes=ahead, time_unit="us")
    return pl.when(time.is_between(FIRST, LAST)).then(time)


def _formatted(text: pl.Expr, form: str) -> pl.Expr:
    try:
        zone = pl.Series([""]).str.to_datetime(form, time_unit="us", strict=False).dtype
    except pl.exceptions.PolarsError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"--time_format {form!r} can't be used ({reason}), expected one like '%d/%m/%Y %H:%M'"
        ) from error
    time = text.str.strip_chars().str.to_datetime(form, time_unit="us", strict=False)
    if isinstance(zone, pl.Datetime) and zone.time_zone is not None:
        time = time.dt.convert_time_zone("UTC")
    return time.dt.replace_time_zone(None)
