"""Tables, lines of text and Parquet: parsed once, without a Python object per row, into Parquet of a scratch folder.

What callers get is a lazy scan of those, with a column LINE that numbers the rows. Where a parse fails, a second and
slow look at the file finds the line.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data.sources.reading import line_chunks, place, plain_text

LINE = "_line"
"""Column of each row's line in the file, or row of a Parquet file, from 1 (uint32)."""


def scan_table(path: Path, separator: str, scratch: Path, quote: bool, columns: Sequence[str] = ()) -> pl.LazyFrame:
    """Return a delimited text file, every column str; its header names the columns unless columns does.

    Raises:
        UserError: If the file is empty, damaged, not UTF-8, has a column twice or a line of too many fields; names the
            line.
    """
    text = plain_text(path, scratch)
    if not columns:
        _check_header(path, text, separator, quote)
    frame = pl.scan_csv(
        text,
        separator=separator,
        quote_char='"' if quote else None,
        has_header=not columns,
        new_columns=list(columns) or None,
        infer_schema=False,
        glob=False,
    )
    return _settle(frame, path, scratch, 1 if columns else 2, separator)


def scan_lines(path: Path, name: str, scratch: Path, fallback: str | None = None) -> pl.LazyFrame:
    """Return a text file's lines as one str column; fallback is the encoding of a file that is not UTF-8.

    Raises:
        UserError: If the file is empty, damaged or neither UTF-8 nor of the fallback; names the line.
    """
    lines = pl.scan_lines(plain_text(path, scratch, fallback), name=name, glob=False)
    return _settle(lines, path, scratch, 1)


def scan_parquet(path: Path, scratch: Path) -> pl.LazyFrame:
    """Return a Parquet file.

    Raises:
        UserError: If it is not a whole Parquet file.
    """
    _check_parquet(path)
    return _settle(pl.scan_parquet(path, glob=False), path, scratch, 1)


def scan_parts(folder: Path, scratch: Path) -> pl.LazyFrame:
    """Return the Parquet files of a folder as one table, in the order of their names.

    Raises:
        MissingFileError: If the folder has none.
        UserError: If one is not whole, or has other columns than the first.
    """
    parts = sorted(path for path in folder.glob("*.parquet") if path.is_file() and path.name[0] not in "._")
    if not parts:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"
        raise MissingFileError(
            f"{folder} has no .parquet file (it has {there}): give one file, or the folder of the parts"
        )
    first: dict[str, pl.DataType] = {}
    for path in parts:
        _check_parquet(path)
        try:
            columns = dict(pl.scan_parquet(path, glob=False).collect_schema())
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise _bad_table(path, None, error) from error
        first = first or columns
        if columns != first:
            odd = sorted(name for name in first | columns if first.get(name) != columns.get(name))
            raise UserError(f"{path} has other columns than {parts[0].name}, they differ in {', '.join(odd)[:200]}")
    return _settle(pl.scan_parquet(parts, glob=False), folder, scratch, 1)


def _settle(frame: pl.LazyFrame, path: Path, scratch: Path, first: int, separator: str | None = None) -> pl.LazyFrame:
    """Return the same rows, parsed once into a Parquet file, so that a faulty file fails here, with their LINE."""
    target = scratch / f"table-{len(list(scratch.iterdir()))}.parquet"
    try:
        if LINE in frame.collect_schema().names():
            raise UserError(f"{path} has a column {LINE!r}, which is kept for the numbers of lines: rename it")
        frame.sink_parquet(target, compression="lz4")
    except pl.exceptions.NoDataError as error:
        raise UserError(f"{path} is empty") from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:  # damaged Parquet makes polars panic
        raise _bad_table(path, separator, error) from error
    return pl.scan_parquet(target, glob=False, row_index_name=LINE, row_index_offset=first)


def _check_parquet(path: Path) -> None:
    with path.open("rb") as file:
        begin = file.read(80)
    if not begin.startswith(b"PAR1"):
        raise UserError(f"{path} is no Parquet file, it begins with {begin!r}: name a CSV file .csv, or write it again")


def _check_header(path: Path, text: Path, separator: str, quote: bool) -> None:
    with text.open("rb") as file:
        line = file.readline(1 << 20).decode(errors="replace").rstrip("\r\n")
    if line.lstrip()[:1] in ("{", "["):
        raise UserError(
            f"{path}, line 1: expected the names of columns, got JSON, {line[:80]!r}: name a JSON file .json"
        )
    require_distinct(path, _fields(line, separator, quote))


def require_distinct(path: Path, names: Sequence[str]) -> None:
    """Check that no name stands twice in a header.

    Raises:
        UserError: If one does.
    """
    twice = next((name for at, name in enumerate(names) if name and name in names[:at]), None)
    if twice is not None:
        raise UserError(f"{path}: the column {twice!r} occurs twice in its header; rename or remove one of them")


def _bad_table(path: Path, separator: str | None, error: Exception) -> UserError:
    reason = str(error).partition("\n")[0][:200]
    if separator is None:
        return UserError(f"{path} can't be read ({reason}): is the file whole? Write or download it again")
    fields = 0
    for first, chunk in line_chunks(path):
        for number, line in enumerate(chunk.split(b"\n"), start=first):
            width = len(_fields(line.decode(errors="replace").removesuffix("\r"), separator, separator == ","))
            fields = fields or width
            if width > fields:
                seen = f"{width} fields, the first line has {fields}"
                return UserError(f"{path}, line {number}: {seen}: {line[:80].decode(errors='replace')!r}")
    return UserError(
        f"{path} can't be read: {reason}. Is a quotation mark left open, or one inside a field not doubled?"
    )


def _fields(line: str, separator: str, quote: bool) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator), []) if quote else line.split(separator)
    except csv.Error:  # a carriage return outside quotes, or a field beyond the reader's limit
        return line.split(separator)


def require_columns(frame: pl.LazyFrame, columns: Sequence[str], path: Path) -> None:
    """Check that a table has its columns.

    Raises:
        UserError: If one is missing; the message names those that exist.
    """
    names = [name for name in frame.collect_schema().names() if name != LINE]
    missing = [name for name in columns if name not in names]
    if missing:
        held = ", ".join(map(repr, names[:40])) + (" ..." if len(names) > 40 else "")
        raise UserError(f"{path} has no column {', '.join(map(repr, missing))}; it has {held[:1000]}")


def row_fault(
    frame: pl.LazyFrame, path: Path, faulty: pl.Expr, columns: Sequence[str]
) -> tuple[str, dict[str, object]]:
    """Return what to call the first row that an expression is true of, and its values in some columns."""
    row = frame.filter(faulty).select(LINE, *columns).head(1).collect().row(0, named=True)
    return place(path, row.pop(LINE)), row
