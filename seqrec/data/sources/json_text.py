"""JSON of sources: one value per file, or one object per line, in place of which an array of objects is read too."""

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from seqrec.basics.errors import UserError
from seqrec.data.sources.reading import (
    CHUNK_BYTES,
    MAX_LINE_BYTES,
    existing,
    first_byte,
    line_chunks,
    pieces,
    place,
    read_bytes,
)
from seqrec.data.sources.tables import LINE

MAX_DEPTH = 100
"""Brackets within brackets. Polars' parser ends the process at some thousands, Python's refuses a thousand."""
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{\]}]', re.DOTALL)
NO_OPENING = bytes(set(range(256)) - set(b"[{\n"))
HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(path: Path, what: str) -> Any:
    """Return the content of a JSON file, NaN allowed.

    Raises:
        UserError: If it isn't UTF-8 or JSON, or an object has a key twice; the message names the line.
    """
    content = read_bytes(existing(path, what))
    try:
        value = json.loads(content.decode(), object_pairs_hook=lambda pairs: _distinct(pairs, path))
        if HALF_CHARACTER.search(content):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 (byte {content[error.start]:#04x})") from error
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise UserError(f"{path}: a text holds {half!r}, half of a character that takes two: write both") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise UserError(f"{path}: brackets are nested too deeply, expected at most {MAX_DEPTH} levels") from error
    except UserError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{path}: {str(error)[:80]}") from error
    return value


def _distinct(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise UserError(f"{path}: the key {twice!r} occurs twice in one object; ids must be unique")
    return result


def object_chunks(path: Path, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, bytes]]:
    """Yield lines of one JSON object each, in chunks with the number of their first, from lines or from an array.

    Raises:
        UserError: If the array is not one of objects, brackets are nested too deeply, or `line_chunks` refuses it.
    """
    chunks = _array_chunks(path, chunk_bytes) if first_byte(path) == b"[" else line_chunks(path, chunk_bytes)
    for first, chunk in chunks:
        deep = _too_deep(chunk)
        if deep is not None:
            raise _deep(place(path, first + deep))
        yield first, chunk


def first_object(path: Path) -> Any:
    """Return the first object of a file of JSON lines or of an array of objects.

    Raises:
        UserError: If it is not JSON.
    """
    for first, chunk in object_chunks(path, 1 << 16):
        for number, line in enumerate(chunk.split(b"\n"), start=first):
            if line.strip():
                try:
                    return json.loads(line.decode())
                except ValueError as error:
                    raise UserError(f"{place(path, number)}: not JSON: {line[:80]!r}") from error
    raise UserError(f"{path} is empty")


def scan_objects(
    path: Path, schema: Mapping[str, pl.DataType | type[pl.DataType]], scratch: Path, chunk_bytes: int = CHUNK_BYTES
) -> pl.LazyFrame:
    """Return the named fields of a file of one JSON object per line, or of an array, null where one lacks a field.

    A column LINE (uint32) holds each row's line, exact while the file has no blank lines, or its place in the array.

    Raises:
        UserError: If a line is not a JSON object in UTF-8 or a field has another type; the message names the line.
    """
    folder = scratch / f"objects-{len(list(scratch.iterdir()))}"
    folder.mkdir()
    parts: list[Path] = []
    for first, chunk in object_chunks(path, chunk_bytes):
        frame = _parse(chunk, schema)
        if frame is None:
            raise _bad_object(path, first, chunk, schema)
        parts.append(folder / f"{len(parts):06d}.parquet")
        frame.with_row_index(LINE, offset=first).write_parquet(parts[-1], compression="lz4")
    if not parts:
        raise UserError(f"{path} is empty")
    return pl.scan_parquet(parts, glob=False)


def _parse(chunk: bytes, schema: Mapping[str, Any]) -> pl.DataFrame | None:
    try:
        return pl.read_ndjson(chunk, schema=dict(schema))
    except pl.exceptions.PolarsError:
        return None


def _bad_object(path: Path, first: int, chunk: bytes, schema: Mapping[str, Any]) -> UserError:
    lines = chunk.split(b"\n")
    low, high = 0, len(lines)  # lines[:low] parse, lines[:high] don't
    while high - low > 1:
        middle = (low + high) // 2
        parses = _parse(b"\n".join([*lines[low:middle], b""]), schema) is not None
        low, high = (middle, high) if parses else (low, middle)
    line = lines[low].strip()
    where = place(path, first + low)
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return UserError(f"{where}: not UTF-8 (byte {line[error.start]:#04x})")
    except json.JSONDecodeError as error:
        return UserError(f"{where}: not JSON: {error.msg} at column {error.colno}: {line[:80]!r}")
    if not isinstance(value, dict):
        return UserError(f"{where}: expected a JSON object, got {line[:80]!r}")
    fields = {name: value.get(name) for name in schema}
    return UserError(f"{where}: a field has another type than {dict(schema)}: {str(fields)[:400]}")


def _too_deep(chunk: bytes) -> int | None:
    """Return which line, from 0, nests brackets deeper than MAX_DEPTH."""
    openings = chunk.translate(None, NO_OPENING).split(b"\n")
    if max(map(len, openings)) <= MAX_DEPTH:
        return None
    lines = chunk.split(b"\n")
    return next(
        (at for at, found in enumerate(openings) if len(found) > MAX_DEPTH and _depth(lines[at]) > MAX_DEPTH), None
    )


def _depth(line: bytes) -> int:
    depth = deepest = 0
    for token in TOKEN.finditer(line):
        mark = line[token.start()]
        depth += (mark in b"[{") - (mark in b"]}")
        deepest = max(deepest, depth)
    return deepest


def _deep(where: str) -> UserError:
    return UserError(f"{where}: brackets are nested deeper than {MAX_DEPTH} levels; no data are, is the file damaged?")


def _array_chunks(path: Path, chunk_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield the objects of a JSON array as lines, in chunks with the place of their first, from 1."""
    array = _Array(path, min(chunk_bytes, 1 << 20))
    first, lines, size = 1, list[bytes](), 0
    for line in array.objects():
        lines.append(line)
        size += len(line)
        if size >= chunk_bytes:
            yield first, b"\n".join([*lines, b""])
            first, lines, size = first + len(lines), [], 0
    if lines:
        yield first, b"\n".join([*lines, b""])


class _Array:
    """A JSON array's text, of which no more is held than the object at hand takes."""

    def __init__(self, path: Path, piece_bytes: int) -> None:
        self.path = path
        self.source = pieces(path, piece_bytes)
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at = "", 0

    def more(self) -> bool:
        """Read on, at least as much as is held, and return whether there was anything."""
        parts = [self.text[self.at :]]
        wanted, got = len(parts[0]), 0
        for piece in self.source:
            try:
                parts.append(self.decoder.decode(piece))
            except UnicodeDecodeError as error:
                raise UserError(f"{self.path}: not UTF-8 (byte {error.object[error.start]:#04x})") from error
            got += len(piece)
            if got >= wanted:
                break
        self.text, self.at = "".join(parts), 0
        return got > 0

    def mark(self) -> str:
        """Return the next character that is no blank; "" at the end."""
        while True:
            rest = len(self.text)
            while self.at < rest and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < rest:
                return self.text[self.at]
            if not self.more():
                return ""

    def objects(self) -> Iterator[bytes]:
        """Yield each object on one line.

        Raises:
            UserError: If an element is no object, or the array does not end.
        """
        number, separator = 0, self.mark()
        while separator and separator in "[,":
            self.at += 1
            number += 1
            if separator == "[" and self.mark() == "]":
                break
            if self.mark() != "{":
                seen = self.text[self.at : self.at + 80]
                raise UserError(f"{self.path}, object {number}: expected a JSON object, got {seen!r}")
            yield self._one(number)
            separator = self.mark()
            if not separator or separator not in ",]":
                seen = self.text[self.at : self.at + 80]
                raise UserError(f"{self.path}, object {number}: expected a comma or ] after it, got {seen!r}")
        self.at += 1
        if self.mark():
            raise UserError(f"{self.path}: goes on after its array: {self.text[self.at : self.at + 80]!r}")

    def _one(self, number: int) -> bytes:
        where = f"{self.path}, object {number}"
        while True:
            try:
                _, end = json.JSONDecoder().raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                begin = self.text[self.at : self.at + 80]
                if len(self.text) - self.at > MAX_LINE_BYTES or not self.more():
                    raise UserError(f"{where}: not JSON: {error.msg}: {begin!r}") from error
            except RecursionError as error:
                raise _deep(where) from error
            except ValueError as error:  # a number of thousands of digits
                raise UserError(f"{where}: {str(error)[:80]}") from error
            else:
                line = self.text[self.at : end].replace("\n", " ").replace("\r", " ")
                self.at = end
                return line.encode()
