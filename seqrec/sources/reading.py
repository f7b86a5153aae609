"""Reading text files without a Python object per row, with errors that name file and line.

Files are parsed once, in streams, into parquet files in a scratch folder; what callers get is a lazy scan of those.
Where a parse fails, a second and slow look at the file finds the line.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from seqrec.errors import MissingFileError, UserError

CHUNK_BYTES = 64 << 20


def existing(path: Path, what: str) -> Path:
    """Return the path of a file that is there.

    Raises:
        MissingFileError: If it isn't; the message names what was looked for and what lies beside it.
    """
    if path.is_file():
        return path
    folder = path.parent
    beside = ", ".join(sorted(other.name for other in folder.iterdir())[:12]) if folder.is_dir() else "no such folder"
    raise MissingFileError(
        f"{what}: {path} is not a file (in {folder}: {beside}); give its path with --input or its own flag"
    )


def only_match(folder: Path, pattern: str, what: str, but: str | None = None) -> Path:
    """Return the one file of a folder that matches a glob pattern, leaving out names that begin with `but`.

    Raises:
        MissingFileError: If the folder has none, or several.
    """
    if not folder.is_dir():
        raise MissingFileError(f"{what}: {folder} is not a folder")
    found = sorted(path for path in folder.glob(pattern) if but is None or not path.name.startswith(but))
    if len(found) != 1:
        seen = ", ".join(path.name for path in found or sorted(folder.iterdir()))[:300] or "nothing"
        raise MissingFileError(f"{what}: {folder} must hold exactly one {pattern} for it, there are {seen}")
    return found[0]


def read_json(path: Path, what: str) -> Any:
    """Return the content of a JSON file, NaN allowed.

    Raises:
        UserError: If it isn't UTF-8 or JSON, or an object has a key twice; the message names the line.
    """
    content = _whole(existing(path, what))
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=lambda pairs: _distinct(pairs, path))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 (byte {content[error.start]:#04x})") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON: {error.msg} at column {error.colno}") from error


def _distinct(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise UserError(f"{path}: the key {twice!r} occurs twice in one object; ids must be unique")
    return result


def _whole(path: Path) -> bytes:
    with _opened(path) as stream:
        try:
            return stream.read()
        except (EOFError, OSError, zlib.error) as error:
            raise _broken_gzip(path, 0, error) from error


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    return gzip.open(path) if zipped else path.open("rb")


def _broken_gzip(path: Path, lines: int, error: Exception) -> UserError:
    return UserError(
        f"{path}: the gzip stream breaks off or is damaged after line {lines:,} ({error}): download the file again"
    )


def line_chunks(path: Path, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, bytes]]:
    """Yield a plain or gzip text file in pieces of whole lines, each with the number of its first line (from 1).

    Raises:
        UserError: If the gzip stream is truncated or damaged; the message names the last whole line.
    """
    line, rest = 1, b""
    with (
        _opened(path) as stream,
        tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=f"reading {path.name}", delay=2) as bar,
    ):
        while True:
            try:
                piece = stream.read(chunk_bytes)
            except (EOFError, OSError, zlib.error) as error:
                raise _broken_gzip(path, line - 1 + rest.count(b"\n"), error) from error
            raw = getattr(stream, "fileobj", None) or stream
            bar.update(raw.tell() - bar.n)
            if not piece:
                break
            cut = piece.rfind(b"\n") + 1
            whole, rest = (rest + piece[:cut], piece[cut:]) if cut else (b"", rest + piece)
            if whole:
                yield line, whole
                line += whole.count(b"\n")
    if rest:
        yield line, rest


def scan_json_lines(
    path: Path, schema: Mapping[str, pl.DataType | type[pl.DataType]], scratch: Path, chunk_bytes: int = CHUNK_BYTES
) -> pl.LazyFrame:
    """Return the named fields of a file of one JSON object per line, null where a line lacks one.

    A column `line` (uint32) holds each row's line number, exact while the file has no blank lines.

    Raises:
        UserError: If a line is not a JSON object in UTF-8 or a field has another type; the message names the line.
    """
    folder = scratch / f"{path.name}-lines"
    folder.mkdir()
    for part, (line, chunk) in enumerate(line_chunks(path, chunk_bytes)):
        frame = _parse(chunk, schema)
        if frame is None:
            raise _bad_json_line(path, line, chunk, schema)
        numbered = frame.with_row_index("line", offset=line)
        numbered.write_parquet(folder / f"{part:06d}.parquet", compression="lz4")
    if not any(folder.iterdir()):
        raise UserError(f"{path} is empty")
    return pl.scan_parquet(folder / "*.parquet")


def _parse(chunk: bytes, schema: Mapping[str, Any]) -> pl.DataFrame | None:
    try:
        return pl.read_ndjson(chunk, schema=dict(schema))
    except pl.exceptions.PolarsError:
        return None


def _bad_json_line(path: Path, first: int, chunk: bytes, schema: Mapping[str, Any]) -> UserError:
    lines = chunk.splitlines(keepends=True)
    low, high = 0, len(lines)  # lines[:low] parse, lines[:high] don't
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _parse(b"".join(lines[low:middle]), schema) is not None else (low, middle)
    line = lines[low].strip()
    where = f"{path}, line {first + low}"
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return UserError(f"{where}: not UTF-8 (byte {line[error.start]:#04x})")
    except json.JSONDecodeError as error:
        return UserError(f"{where}: not JSON: {error.msg} at column {error.colno}: {line[:80]!r}")
    if not isinstance(value, dict):
        return UserError(f"{where}: expected a JSON object, got {line[:80]!r}")
    fields = {name: value.get(name) for name in schema}
    return UserError(f"{where}: a field has another type than {dict(schema)}: {fields}")


def scan_table(path: Path, separator: str, scratch: Path, quote: bool, columns: Sequence[str] = ()) -> pl.LazyFrame:
    """Return a delimited text file, every column str; its header names the columns unless columns does.

    Raises:
        UserError: If the file is empty, damaged, not UTF-8 or has a line of too many fields; names the line.
    """
    try:
        frame = pl.scan_csv(
            path,
            separator=separator,
            quote_char='"' if quote else None,
            has_header=not columns,
            new_columns=list(columns) or None,
            infer_schema=False,
        )
        return settle(frame, path, scratch, separator)
    except pl.exceptions.NoDataError as error:
        raise UserError(f"{path} is empty") from error


def settle(frame: pl.LazyFrame, path: Path, scratch: Path, separator: str | None = None) -> pl.LazyFrame:
    """Return the same rows, parsed once into a parquet file, so that a faulty file fails here.

    Raises:
        UserError: If polars can't parse the file; the message names the line where it can be found.
    """
    target = scratch / f"{path.name}-{len(list(scratch.iterdir()))}.parquet"
    try:
        frame.sink_parquet(target, compression="lz4")
    except pl.exceptions.NoDataError:
        raise
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _bad_text(path, separator, error) from error
    return pl.scan_parquet(target, glob=False)


def _bad_text(path: Path, separator: str | None, error: Exception) -> UserError:
    fields = 0
    for first, chunk in line_chunks(path):  # raises by itself when the gzip stream is damaged
        for number, line in enumerate(chunk.splitlines(), start=first):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as fault:
                return UserError(f"{path}, line {number}: not UTF-8 (byte {line[fault.start]:#04x})")
            width = _width(text, separator)
            fields = fields or width
            if width > fields:
                return UserError(f"{path}, line {number}: {width} fields, the first line has {fields}: {line[:80]!r}")
    return UserError(f"{path}: {error}")


def _width(line: str, separator: str | None) -> int:
    """Return the number of fields; only comma-separated files quote theirs."""
    if separator is None:
        return 0
    return len(next(csv.reader([line]), [])) if separator == "," else line.count(separator) + 1


def require_columns(frame: pl.LazyFrame, columns: Sequence[str], path: Path) -> None:
    """Check that a table has its columns.

    Raises:
        UserError: If one is missing; the message names those that exist.
    """
    names = frame.collect_schema().names()
    missing = [name for name in columns if name not in names]
    if missing:
        raise UserError(f"{path} has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, names))}")


def interactions(
    frame: pl.LazyFrame, path: Path, first_line: int, timestamp: pl.Expr | None = None, rating: pl.Expr | None = None
) -> pl.LazyFrame:
    """Return (user str, item str, timestamp int64, rating float64) from a frame with `user` and `item`.

    Args:
        frame: Rows in file order; a column `line` overrides first_line.
        path: The file, for errors.
        first_line: Line number of the first row.
        timestamp: Seconds, str or a number.
        rating: Str or a number.

    Raises:
        UserError: If a row lacks its user or item, or time or rating is not a number; names the line.
    """
    numbers = {
        "timestamp": None
        if timestamp is None
        else pl.coalesce(
            timestamp.cast(pl.Int64, strict=False),
            timestamp.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False),
        ),
        "rating": None if rating is None else rating.cast(pl.Float64, strict=False).fill_nan(None),
    }
    columns = [pl.col("user").cast(pl.String), pl.col("item").cast(pl.String)]
    columns += [expression.alias(name) for name, expression in numbers.items() if expression is not None]
    result = frame.select(columns)
    nulls = result.null_count().collect(engine="streaming").row(0, named=True)
    for name, count in nulls.items():
        if count:
            raise _missing_value(frame, result, name, path, first_line)
    return result


def _missing_value(frame: pl.LazyFrame, result: pl.LazyFrame, name: str, path: Path, first_line: int) -> UserError:
    rows = pl.concat([frame.with_row_index("_row"), result.select(pl.col(name).alias("_value"))], how="horizontal")
    row = rows.filter(pl.col("_value").is_null()).head(1).collect().row(0, named=True)
    line = row.get("line", row["_row"] + first_line)
    content = {key: value for key, value in row.items() if key not in ("_row", "_value", "line")}
    return UserError(f"{path}, line {line}: no valid {name} in {str(content)[:200]}")


def unique_items(items: pl.DataFrame, path: Path, first_line: int, keep: str = "error") -> pl.DataFrame:
    """Return items (raw_id and attributes) with each raw_id once; keep is error, first or last.

    Raises:
        UserError: If a row has no id, or an id occurs twice and keep is error; names both lines.
    """
    line = items["line"] if "line" in items.columns else pl.Series("line", range(first_line, first_line + len(items)))
    items = items.drop("line", strict=False)
    if items["raw_id"].null_count():
        raise UserError(f"{path}, line {line.filter(items['raw_id'].is_null())[0]}: an item without id")
    if items["raw_id"].n_unique() == len(items):
        return items
    if keep != "error":
        return items.unique("raw_id", keep="first" if keep == "first" else "last", maintain_order=True)
    twice = items["raw_id"].filter(items["raw_id"].is_duplicated())[0]
    lines = line.filter(items["raw_id"] == twice)
    raise UserError(f"{path}, lines {lines[0]} and {lines[1]}: item id {twice!r} occurs twice; ids must be unique")
