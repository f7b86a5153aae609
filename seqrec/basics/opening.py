"""Opening files that somebody else may have written: one function per kind of file.

Each returns the content, or raises a UserError that names the file, what it holds and how to repair it. None runs code
from a file, treats a path as a pattern, or allocates memory for a size that a header merely claims.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqrec.basics.errors import MissingFileError, UserError

MAX_JSON_BYTES = 64 << 20
"""Largest configuration, manifest or results file."""
MAX_DEPTH = 100
"""Deepest nesting of brackets."""


def read_json_object(
    path: Path, repair: str, fields: Mapping[str, type | tuple[type, ...]] | None = None, finite: bool = False
) -> dict[str, Any]:
    """Return the object in a JSON file.

    Args:
        path: The file, UTF-8, perhaps with a byte order mark.
        repair: What to do about a faulty file, for the message.
        fields: Keys that must be there, each with its type or types; an int passes for a float, a bool for neither.
        finite: Whether to refuse NaN and infinite numbers.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it isn't an object in JSON, or a field is missing or of another type.
    """
    value = _read_json(path, repair, finite)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {describe(value)}, expected an object, {{...}}: {repair}")
    for name, kinds in (fields or {}).items():
        check_field(value, name, kinds if isinstance(kinds, tuple) else (kinds,), path, repair)
    return value


def check_field(value: Mapping[str, Any], name: str, kinds: tuple[type, ...], path: Path, repair: str) -> None:
    """Check that an object has a field of one of some types.

    Raises:
        UserError: If it hasn't.
    """
    expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
    if name not in value:
        raise UserError(f"{path} has no {name!r}, expected {expected}: {repair}")
    kind = type(value[name])
    if kind not in kinds and not (kind is int and float in kinds):
        raise UserError(f"{path}: {name!r} is {describe(value[name])}, expected {expected}: {repair}")


def _read_json(path: Path, repair: str, finite: bool) -> Any:
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist: {repair}")
    if (size := path.stat().st_size) > MAX_JSON_BYTES:
        raise UserError(f"{path} has {size:,} bytes, expected at most {MAX_JSON_BYTES:,}: {repair}")
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=_without_repeats)
        _check_values(value, finite)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start:,}): {repair}") from error
    except json.JSONDecodeError as error:
        seen = "empty" if not error.doc.strip() else f"not JSON in line {error.lineno} ({error.msg})"
        raise UserError(f"{path} is {seen}: {repair}") from error
    except RecursionError as error:
        raise UserError(f"{path} nests brackets deeper than {MAX_DEPTH} levels: {repair}") from error
    except ValueError as error:  # from the two functions below, or a number with thousands of digits
        raise UserError(f"{path}: {str(error)[:120]}: {repair}") from error
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = Counter(name for name, _ in pairs)
        raise ValueError(f"the key {names.most_common(1)[0][0]!r:.80} occurs twice")
    return result


def _check_values(value: Any, finite: bool) -> None:
    """Raise ValueError for a value nested too deeply, half a character, or, where asked to, a number not finite."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        for part in level:
            if isinstance(part, str) and not part.isascii():
                part.encode()  # half of a surrogate pair raises UnicodeEncodeError, a ValueError
            elif finite and isinstance(part, float) and not np.isfinite(part):
                raise ValueError(f"{part} is no number")
        inner = [part for part in level if isinstance(part, dict | list)]
        level = [child for part in inner for child in ([*part, *part.values()] if isinstance(part, dict) else part)]
        if not level:
            return
    raise RecursionError


def describe(value: Any) -> str:
    """Return a JSON value in a few words, for a message."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,}"
    return json.dumps(value)[:60]


def read_array(path: Path, repair: str, mapped: bool = False) -> NDArray[Any]:
    """Return the array of a .npy file, or a view of the file.

    Args:
        path: The file.
        repair: What to do about a faulty file, for the message.
        mapped: Whether to leave the array on disk, read-only.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it is no whole .npy file, or holds Python objects.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist: {repair}")
    try:
        # A header that claims more than the file holds fails here; reading would allocate the memory first.
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # numpy reads headers as Python, with a dozen kinds of errors
        raise UserError(f"{path} is no whole .npy file of numbers ({str(error)[:120]}): {repair}") from error
    return array if mapped else np.array(array)


def read_parquet(path: Path, repair: str) -> pl.DataFrame:
    """Return the table in a Parquet file; its path is never a pattern.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it is no whole Parquet file.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist: {repair}")
    try:
        return pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise UserError(f"{path} is no whole Parquet file ({str(error)[:120]}): {repair}") from error
