"""What sources of tables share: files of rows and of items in the forms that people have, and the choice of rows."""

import logging
from abc import ABC
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from seqrec.basics.errors import UserError
from seqrec.data.preparation import Preparation
from seqrec.data.sources.cells import join_lists, plain_ids
from seqrec.data.sources.checks import items_by_id
from seqrec.data.sources.json_text import read_json
from seqrec.data.sources.movielens import read_movies, read_u_item
from seqrec.data.sources.reading import existing, line_chunks
from seqrec.data.sources.recformer import attribute_table, item_attributes
from seqrec.data.sources.tables import LINE, require_columns, scan_lines, scan_parquet, scan_parts, scan_table

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tabular(Preparation, ABC):
    """Options of every source of rows."""

    items: Path | None = None
    """Items with an id and text: .csv or .tsv with a header, .parquet, .json ({id: title}, {id: {title ...}} or a list
    of objects), .txt of lines of an id and its title, movies.dat or u.item; without it the dataset has no text."""
    id_column: str | None = None
    """Column of the item id in the items' table; its first column by default."""
    header: tuple[str, ...] = ()
    """Names of the input's columns, where the file has no header."""
    items_header: tuple[str, ...] = ()
    """Names of the items' columns, where the file has no header."""
    where: str | None = None
    """Condition that rows must meet, in SQL on the input's columns, for example "Quantity > 0 AND Country = 'UK'"."""
    drop_incomplete: bool = False
    """Leave out rows without user or item, and say how many; otherwise the first one is an error."""

    def choose_rows(self, frame: pl.LazyFrame, path: Path, needed: list[str]) -> pl.LazyFrame:
        """Return the rows that `where` and `drop_incomplete` leave.

        Args:
            frame: All rows of the input, in order, with LINE.
            path: The input, for messages.
            needed: Columns of which none may be empty.

        Raises:
            UserError: If where is not a condition on the frame's columns.
        """
        if self.where is not None:
            frame = _keep(frame, _met(frame, self.where, path), path, f"--where {self.where!r}")
        if self.drop_incomplete:
            present = pl.all_horizontal(
                _present(name, kind) for name, kind in frame.collect_schema().items() if name in needed
            )
            frame = _keep(
                frame, frame.select(present), path, f"--drop_incomplete, by {' and '.join(map(repr, needed))},"
            )
        return frame

    def read_item_text(self, scratch: Path) -> pl.DataFrame | None:
        """Return raw_id and the attributes of the items' file; None without one."""
        if self.items is None:
            return None
        return read_items(
            existing(self.items, "--items"), scratch, self.id_column, self.attribute_names, self.items_header
        )


def _present(name: str, kind: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if kind.is_float():
        column = column.fill_nan(None)
    return column.str.strip_chars() != "" if kind == pl.String else column.is_not_null()


def _keep(frame: pl.LazyFrame, kept: pl.LazyFrame, path: Path, step: str) -> pl.LazyFrame:
    """Return the rows whose one bool in `kept` is true, and log how many are not."""
    mask = kept.collect(engine="streaming").to_series().fill_null(value=False)
    log.info("%s removed %s of %s rows of %s", step, f"{len(mask) - mask.sum():,}", f"{len(mask):,}", path.name)
    return pl.concat([frame, pl.LazyFrame({"_kept": mask})], how="horizontal").filter("_kept").drop("_kept")


def _met(frame: pl.LazyFrame, where: str, path: Path) -> pl.LazyFrame:
    """Return one bool column: which rows meet a condition, in which text columns of numbers alone are numbers.

    Raises:
        UserError: If it is not SQL, names another column, or is not true or false.
    """
    types = frame.collect_schema()
    names = ", ".join(repr(name) for name in types if name != LINE)
    try:
        condition = pl.sql_expr(where)
        read = _with_numbers(frame, [name for name in condition.meta.root_names() if name in types])
        met = read.select(pl.lit(value=True).alias("_row"), condition.alias("_met")).select("_met")
        kind = met.collect_schema()["_met"]
        if kind != pl.Boolean:
            raise UserError(f"--where {where!r} is {kind}, not true or false; the columns of {path.name} are {names}")
        return met.collect(engine="streaming").lazy()
    except pl.exceptions.PolarsError as error:
        reason = str(error).partition("\n")[0][:160]
        raise UserError(
            f'--where {where[:80]!r}: {reason}; write SQL such as "Quantity > 0 AND \\"Unit Price\\" < 9" on the '
            f"columns of {path.name}: {names}"
        ) from error


def _with_numbers(frame: pl.LazyFrame, names: list[str]) -> pl.LazyFrame:
    """Return the frame with text columns of numbers alone as numbers, and without NaN, which exceeds every number."""
    types = frame.collect_schema()
    for name in names:
        column = pl.col(name)
        if types[name] == pl.String:
            kinds = (pl.Int64, pl.Float64)
            lost = [
                (column.cast(kind, strict=False).null_count() - column.null_count()).alias(str(kind)) for kind in kinds
            ]
            counts = frame.select(lost).collect(engine="streaming").row(0)
            kind = next((kind for kind, count in zip(kinds, counts, strict=True) if not count), None)
            column = column if kind is None else column.cast(kind)
            frame = frame.with_columns(column.fill_nan(None) if kind is pl.Float64 else column)
        elif types[name].is_float():
            frame = frame.with_columns(column.fill_nan(None))
    return frame


def scan_any(path: Path, scratch: Path, header: tuple[str, ...] = ()) -> pl.LazyFrame:
    """Return a table by the ending of its name; text files give str columns, named by header if they have no own.

    A folder is that of Parquet files, see `scan_parts`.

    Raises:
        UserError: If the ending is unknown or the file is faulty.
    """
    if path.is_dir():
        return scan_parts(path, scratch)
    kind = ending(path)
    if kind == ".parquet":
        return scan_parquet(path, scratch)
    if kind not in (".csv", ".tsv", ".txt"):
        raise UserError(f"{path}: expected .csv, .tsv, .txt (tabs) or .parquet, perhaps .gz, got {kind!r}")
    return scan_table(path, "," if kind == ".csv" else "\t", scratch, kind == ".csv", header)


def ending(path: Path) -> str:
    """Return the ending of a file's name, without `.gz`."""
    return next((suffix for suffix in reversed(path.suffixes) if suffix != ".gz"), "").lower()


def read_items(
    path: Path,
    scratch: Path,
    id_column: str | None = None,
    wanted: tuple[str, ...] = (),
    header: tuple[str, ...] = (),
) -> pl.DataFrame:
    """Return raw_id, unique, and the attributes of a file of items, in any form that `Tabular.items` names.

    Args:
        path: The file.
        scratch: For parsed files.
        id_column: Column of the id; the first by default. Lines and movies have none.
        wanted: Attributes to read; all if empty.
        header: Names of the columns of a table that has no header.

    Raises:
        UserError: If the file is faulty, or lacks a column or all text.
    """
    kind = ending(path)
    if kind == ".item" and not _has_tab(path):
        return read_u_item(path, scratch)
    if kind == ".dat":
        return read_movies(path, scratch)
    if kind == ".json":
        frame = _json_items(read_json(path, "--items"), path, id_column, wanted)
    elif kind == ".txt" and not header and not _has_tab(path):
        frame = _title_lines(path, scratch)
    else:
        frame = scan_any(path, scratch, header)
    columns = [name for name in frame.collect_schema().names() if name != LINE]
    key = id_column or (columns[0] if columns else "")
    require_columns(frame, [key, *wanted], path)
    names = list(wanted) or [name for name in columns if name != key]
    if not names:
        raise UserError(f"{path}: expected an id column and at least one of text, it has {', '.join(columns)}")
    if "raw_id" in names:
        raise UserError(f"{path} has a column 'raw_id' beside {key!r}: --id_column says which of them is the id")
    rows = plain_ids(frame.select(LINE, key, *names), key, str(path))
    filled = rows.filter(~pl.all_horizontal(pl.col(key, *names).is_null()))  # blank lines are null
    return join_lists(items_by_id(filled, key, names, path), names, str(path))


def _json_items(content: Any, path: Path, key: str | None, wanted: tuple[str, ...]) -> pl.LazyFrame:
    """Return the columns of `{id: title}`, `{id: {title ...}}` or `[{id, title ...}]`, the id first."""
    if isinstance(content, dict):
        frame = item_attributes(content, content, str(path), wanted)
    elif isinstance(content, list) and all(isinstance(entry, dict) for entry in content):
        frame = attribute_table(content, str(path), (key, *wanted) if wanted and key else ())
    else:
        raise UserError(
            f"{path}: expected {{id: title}}, {{id: {{title ...}}}} or a list of objects, got {content!r:.80}"
        )
    return frame.lazy().with_row_index(LINE, offset=1)


def _title_lines(path: Path, scratch: Path) -> pl.LazyFrame:
    """Return raw_id and title of lines that begin with an id; blank lines are null."""
    fields = pl.col("text").str.extract_groups(r"^\s*([^ \t]+)\s*(.*?)\s*$").struct
    lines = scan_lines(path, "text", scratch)
    return lines.select(LINE, fields.field("1").alias("id"), fields.field("2").alias("title"))


def _has_tab(path: Path) -> bool:
    _, chunk = next(line_chunks(path, 1 << 16), (1, b""))
    return b"\t" in chunk.split(b"\n", 1)[0]
