"""The files of sources as text: found, opened whether gzip or not, held to limits, and made UTF-8.

No path is a pattern. Only a newline ends a line, with or without a carriage return before it. A byte order mark at the
beginning of a file is no part of its text.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from io import BufferedReader
from pathlib import Path

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.progress import progress

CHUNK_BYTES = 64 << 20
MAX_LINE_BYTES = 64 << 20
"""Longest line; a line of a million item ids takes a tenth of it."""
MAX_WHOLE_BYTES = 2 << 30
"""Largest file that is read as one value."""
MAX_EXPANSION, FREE_EXPANSION = 200, 1 << 30
"""Limits of a gzip stream: beyond the second, in bytes, it may be at most the first times as large as the file. Zipping
makes text 3 to 20 times smaller, a file of zeros 1,000 times."""
BOM = b"\xef\xbb\xbf"
FOREIGN = {
    b"PAR1": "a Parquet file: its name must end in .parquet",
    b"PK\x03\x04": "a zip archive or an Excel file: unpack it, or save the sheet as CSV in UTF-8",
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
    b"BZh": "compressed by bzip2: unpack it, or use gzip",
    b"\xfd7zXZ": "compressed by xz: unpack it, or use gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstandard: unpack it, or use gzip",
}
"""First bytes of files that are no text."""


def existing(path: Path, what: str, or_folder: bool = False) -> Path:
    """Return the path of a file, or perhaps a folder, that is there.

    Raises:
        MissingFileError: If it isn't; the message names what was looked for and what lies beside it.
    """
    if path.is_file() or (or_folder and path.is_dir()):
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


def place(path: Path, *numbers: int) -> str:
    """Return what a message calls numbered parts of a file, from 1: lines, rows, or objects of a JSON array."""
    with path.open("rb") as file:
        unit = "row" if file.read(4) == b"PAR1" else "object" if first_byte(path) == b"[" else "line"
    return f"{path}, {unit}{'s' if len(numbers) > 1 else ''} {' and '.join(map(str, numbers))}"


def first_byte(path: Path) -> bytes:
    """Return the first byte of a text that is no blank; none if there is none near the beginning."""
    with _opened(path) as stream:
        try:
            return stream.read(1 << 12).removeprefix(BOM).lstrip()[:1]
        except (EOFError, OSError, zlib.error) as error:
            raise _broken_gzip(path, 0, error) from error


def read_bytes(path: Path) -> bytes:
    """Return the whole text of a plain or gzip file, without a byte order mark.

    Raises:
        UserError: If it is larger than MAX_WHOLE_BYTES, no text, or a damaged gzip stream.
    """
    parts, size = [], 0
    for piece in pieces(path, CHUNK_BYTES):
        size += len(piece)
        if size > MAX_WHOLE_BYTES:
            raise UserError(
                f"{path} holds more than {MAX_WHOLE_BYTES >> 30} GiB of one JSON value, expected at most that: "
                "write it as a table, and use the source `table` or `histories`"
            )
        parts.append(piece)
    return b"".join(parts).removeprefix(BOM)


def pieces(path: Path, size: int) -> Iterator[bytes]:
    """Yield a plain or gzip file's text in pieces of limited size.

    Raises:
        UserError: If the file is no text, or a gzip stream that is truncated, damaged or grows beyond measure.
    """
    packed, grown, lines = path.stat().st_size, 0, 0
    with (
        _opened(path) as stream,
        progress(total=packed, unit="B", unit_scale=True, desc=f"reading {path.name}") as bar,
    ):
        while True:
            try:
                piece = stream.read(size)
            except (EOFError, OSError, zlib.error) as error:
                raise _broken_gzip(path, lines, error) from error
            if not piece:
                return
            if not grown:
                _check_text(path, piece)
            grown += len(piece)
            lines += piece.count(b"\n")
            if grown > FREE_EXPANSION and grown > MAX_EXPANSION * packed:
                raise UserError(
                    f"{path}: its {packed:,} bytes unpack to more than {grown:,}, over {MAX_EXPANSION} times as many; "
                    "no data are packed so densely. If it is right, unpack it with gunzip first"
                )
            raw = getattr(stream, "fileobj", None) or stream
            bar.update(raw.tell() - bar.n)
            yield piece


def line_chunks(path: Path, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, bytes]]:
    """Yield a plain or gzip text file in pieces of whole lines, each with the number of its first line (from 1).

    Raises:
        UserError: If a line is longer than MAX_LINE_BYTES, or for what `pieces` refuses.
    """
    line, held, size = 1, list[bytes](), 0
    for piece in pieces(path, chunk_bytes):
        cut = piece.rfind(b"\n") + 1
        if cut:
            whole = b"".join([*held, piece[:cut]])
            yield line, whole.removeprefix(BOM) if line == 1 else whole
            line += whole.count(b"\n")
            held, size = [], 0
        held.append(piece[cut:])
        size += len(piece) - cut
        if size > MAX_LINE_BYTES:
            raise UserError(
                f"{path}, line {line}: longer than {MAX_LINE_BYTES >> 20} MiB, begins with {held[0][:80]!r}; expected "
                "short lines, one user, event or item each"
            )
    rest = b"".join(held)
    rest = rest.removeprefix(BOM) if line == 1 else rest
    if rest:
        yield line, rest


def plain_text(path: Path, scratch: Path, fallback: str | None = None) -> Path:
    """Return a file of the same text in UTF-8, unpacked and without a byte order mark: the file itself if it is so.

    Args:
        path: The file.
        scratch: Folder for the text, where it is not the file itself.
        fallback: Encoding of the whole file if it is not UTF-8.

    Raises:
        UserError: If the file is empty or not UTF-8 and there is no fallback, or for what `line_chunks` refuses.
    """
    target = scratch / f"text-{len(list(scratch.iterdir()))}"
    with path.open("rb") as file:
        head = file.read(3)
    copied = head[:2] == b"\x1f\x8b" or head == BOM
    encoding, fault, ends, size = "utf-8", "", 0, 0
    with target.open("wb") if copied else nullcontext() as copy:
        for line, chunk in line_chunks(path, 8 << 20):
            try:
                chunk.decode()
            except UnicodeDecodeError as error:
                number = line + chunk.count(b"\n", 0, error.start)
                fault = f"{path}, line {number}: not UTF-8 (byte {chunk[error.start]:#04x})"
                break
            if copy is not None:
                copy.write(chunk)
            size += len(chunk)
            ends += chunk.count(b"\n")
    if fault and fallback is None:
        raise UserError(f"{fault}: save it as UTF-8")
    if fault:
        encoding, copied = fallback or "", True
        with target.open("wb") as copy:
            for _, chunk in line_chunks(path):
                copy.write(chunk.decode(encoding).encode())
    elif not size:
        raise UserError(f"{path} is empty")
    elif not ends and b"\r" in chunk.rstrip():
        raise UserError(f"{path}: its lines end with a carriage return alone, expected newlines: save it with those")
    return target if copied else path


def _check_text(path: Path, begin: bytes) -> None:
    for mark, name in FOREIGN.items():
        if begin.startswith(mark):
            raise UserError(f"{path} is {name}")


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    return gzip.open(path) if zipped else path.open("rb")


def _broken_gzip(path: Path, lines: int, error: Exception) -> UserError:
    return UserError(
        f"{path}: the gzip stream breaks off or is damaged after line {lines:,} ({error}): download the file again"
    )
