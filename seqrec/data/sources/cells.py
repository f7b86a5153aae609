"""Cells of tables: lists written as text, and whole numbers written as fractions."""

import ast
import json

import polars as pl

from seqrec.basics.errors import UserError

ELEMENT = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,\[\]]+"""
"""One element of a list: quoted, or a word that ends at a blank, a comma or a bracket."""
EXACT = 1 << 53
"""Floats hold whole numbers below this exactly."""


def split_lists(cells: pl.Expr) -> pl.Expr:
    """Return the elements of lists written as `[1, 2]`, `("a", 'b')`, `1 2` or `a,b`, as list[str]; none of "" or null.

    Quotes are taken off and what is escaped in them is resolved. Lists in lists become one.
    """
    return cells.map_batches(_split, return_dtype=pl.List(pl.String))


def _split(cells: pl.Series) -> pl.Series:
    inside = cells.fill_null("").str.replace(r"(?s)^\s*\((.*)\)\s*$", "$1")
    if not cells.str.contains("[\"']").any():
        return inside.str.extract_all(r"[^\s,\[\]]+")  # twice as fast
    parts = inside.str.extract_all(ELEMENT)
    quoted = pl.element().str.contains(r"""(?s)^(?:'.*'|".*")$""")
    bare = pl.when(quoted).then(pl.element().str.head(-1).str.tail(-1)).otherwise(pl.element())
    if not cells.str.contains("\\", literal=True).any():
        return parts.list.eval(bare)
    resolved = pl.element().map_elements(lambda part: _literal(part) if "\\" in part else part, return_dtype=pl.String)
    return parts.list.eval(
        pl.when(quoted & pl.element().str.contains("\\", literal=True)).then(resolved).otherwise(bare)
    )


def _literal(quoted: str) -> str:
    for read in (json.loads, ast.literal_eval):
        try:
            return str(read(quoted))
        except (ValueError, SyntaxError):
            continue
    return quoted[1:-1]


def is_id(kind: pl.DataType) -> bool:
    """Return whether a column of that type can hold ids: text or numbers."""
    return kind.is_numeric() or isinstance(kind, pl.String | pl.Categorical | pl.Enum | pl.Null)


def join_lists(table: pl.DataFrame, names: list[str], origin: str) -> pl.DataFrame:
    """Return the table with lists in columns of text joined by blanks: list columns, and those of `['a', 'b']`.

    A column of str counts as lists only if every cell is blank or written as one.

    Raises:
        UserError: If a column holds what is no text, such as bytes or objects.
    """
    for name in names:
        column = table[name]
        inner = column.dtype.inner if isinstance(column.dtype, pl.List | pl.Array) else column.dtype
        if not (is_id(inner) or isinstance(inner, pl.Boolean | pl.Date | pl.Datetime)):  # type: ignore[arg-type]
            raise UserError(
                f"{origin}: {name!r} holds {column.dtype}, expected text; name other columns by --attributes"
            )
        if isinstance(column.dtype, pl.List | pl.Array):
            joined = pl.col(name).cast(pl.List(pl.String), strict=False).list.join(" ", ignore_nulls=True)
            table = table.with_columns(joined)
        elif column.dtype == pl.String:
            text = column.str.strip_chars().replace("", None).drop_nulls()
            if len(text) and text.str.contains(r"(?s)^\[.*\]$").all():
                table = table.with_columns(split_lists(pl.col(name)).list.join(" "))
    return table


def plain_ids(frame: pl.LazyFrame, name: str, origin: str) -> pl.LazyFrame:
    """Return the frame with whole ids that were written as fractions, `1234.0`, as whole numbers.

    Such are columns of floats, and those of text whose every cell ends in `.0`: what becomes of a column of whole
    numbers where some were missing.

    Raises:
        UserError: If the column holds neither text nor numbers, or floats that are not whole or too large to be exact.
    """
    kind, column = frame.collect_schema()[name], pl.col(name)
    if not is_id(kind):
        raise UserError(f"{origin}: the ids in {name!r} are {kind}, expected text or whole numbers")
    if kind.is_decimal():
        frame, kind = frame.with_columns(column.cast(pl.String)), pl.String()
    if kind.is_float():
        finite = column.filter(column.is_finite())
        odd = finite.filter((finite != finite.round()) | (finite.abs() >= EXACT)).first()
        value = frame.select(odd).collect(engine="streaming").item()
        if value is not None:
            raise UserError(
                f"{origin}: the id {value!r} in {name!r} is no whole number below {EXACT:,}, as an id in a column of "
                "floats must be: write ids as text or whole numbers"
            )
        # NaN stays missing; an infinite id stays what it is, and is refused with the rows that lack one.
        return frame.with_columns(column.fill_nan(None).cast(pl.Int64, strict=False))
    if kind == pl.String:
        fractions = (column.str.contains(r"^-?\d+\.0+$")).all() & (column.count() > 0)
        if frame.select(fractions).collect(engine="streaming").item():
            return frame.with_columns(column.str.replace(r"\.0+$", ""))
    return frame
