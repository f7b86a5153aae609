"""The files of a prepared dataset, opened and compared with its manifest. Letters: U users, E events, N items.

Sizes, types and bounds are compared at every opening, the sha256 of the sequences once per change: what was verified is
remembered, by size and time of change, in `.NAME.verified.json` beside the folder, or not at all where that can't be
written. 30 million events with times take 0.02 s at each opening and 0.3 s more once. The ids of items.parquet are
compared whenever it is read: 0.04 s for a million.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.basics.files import write_atomically
from seqrec.basics.names import check_name
from seqrec.basics.opening import read_array, read_json_object, read_parquet
from seqrec.basics.progress import progress

log = logging.getLogger(__name__)
FORMAT = 1
DTYPES: dict[str, type[np.generic]] = {"offsets": np.int64, "items": np.int32, "timestamps": np.int64}
FIELDS: dict[str, type] = {
    "name": str,
    "num_users": int,
    "num_items": int,
    "num_interactions": int,
    "attributes": list,
    "has_timestamps": bool,
    "source": dict,
    "item_ids_sha256": str,
    "sequences_sha256": str,
}
REPAIR = "the folder was damaged, changed by hand or copied in part: prepare it again with `scripts/prepare.py`"
CHUNK = 1 << 22
"""Values checked at a time."""
SETTLED_SECONDS = 2
"""Seconds after a change in which a file is not yet remembered as verified: it may change again within one tick of the
clock."""


def read_manifest(file: Path) -> dict[str, Any]:
    """Return the content of a manifest.json, checked to be complete.

    Raises:
        UserError: If it isn't JSON, or a field is missing or of another type.
    """
    manifest = read_json_object(file, REPAIR)
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{file} has format {str(manifest.get('format'))[:40]}, expected {FORMAT}: prepare the dataset again"
        )
    for name, kind in FIELDS.items():
        value = manifest.get(name)
        if type(value) is not kind or (isinstance(value, int) and value < 0):
            raise UserError(f"{file}: {name} is {str(value)[:40]!r}, expected {kind.__name__}: {REPAIR}")
    if not all(isinstance(name, str) for name in manifest["attributes"]):
        raise UserError(f"{file}: attributes is {str(manifest['attributes'])[:80]}, expected names: {REPAIR}")
    check_name(f"{file}: name", manifest["name"])
    return manifest


def open_sequences(folder: Path, manifest: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the offsets, items and, where the manifest has them, timestamps of a dataset, memory-mapped.

    Returns:
        (U+1,) int64 `offsets`, (E,) int32 `items` in 1..N, and perhaps (E,) int64 `timestamps`.

    Raises:
        MissingFileError: If one is missing.
        UserError: If one is not what the manifest says.
    """
    events = manifest["num_interactions"]
    sizes = {"offsets": manifest["num_users"] + 1, "items": events}
    if manifest["has_timestamps"]:
        sizes["timestamps"] = events
    arrays = {name: _open_array(folder / f"{name}.npy", DTYPES[name], size) for name, size in sizes.items()}
    _check_offsets(folder, arrays["offsets"], events)
    _check_items(folder, arrays["items"], manifest["num_items"])
    _verify_once(folder, arrays, manifest["sequences_sha256"])
    return arrays


def _open_array(file: Path, dtype: type[np.generic], size: int) -> NDArray[Any]:
    array = read_array(file, REPAIR, mapped=True)
    if array.dtype != dtype or array.shape != (size,):
        raise UserError(
            f"{file} holds {array.dtype} of shape {array.shape} where manifest.json says {np.dtype(dtype)} of shape "
            f"({size},): {REPAIR}"
        )
    return array


def _check_offsets(folder: Path, offsets: NDArray[np.int64], events: int) -> None:
    if offsets[0] != 0 or offsets[-1] != events:
        raise UserError(f"{folder}/offsets.npy: {offsets[0]} to {offsets[-1]}, expected 0 to {events}: {REPAIR}")
    for start, chunk in _chunks(offsets, overlap=1):
        falls = chunk[1:] < chunk[:-1]
        if falls.any():
            user = start + int(falls.argmax())
            bounds = f"begins at {offsets[user]} and ends at {offsets[user + 1]}"
            raise UserError(f"{folder}/offsets.npy: the history of user {user} {bounds}: {REPAIR}")


def _check_items(folder: Path, items: NDArray[np.int32], num_items: int) -> None:
    for start, chunk in _chunks(items):
        if chunk.min() < 1 or chunk.max() > num_items:
            place = int(((chunk < 1) | (chunk > num_items)).argmax())
            seen = f"event {start + place} is item {chunk[place]}"
            raise UserError(f"{folder}/items.npy: {seen}, expected 1 to {num_items}: {REPAIR}")


def _chunks(array: NDArray[Any], overlap: int = 0) -> Iterator[tuple[int, NDArray[Any]]]:
    for start in range(0, len(array) - overlap, CHUNK):
        yield start, array[start : start + CHUNK + overlap]


def _verify_once(folder: Path, arrays: Mapping[str, NDArray[Any]], expected: str) -> None:
    """Compare the sha256 of the sequences, unless that was done after the files last changed."""
    stats = {name: (folder / f"{name}.npy").stat() for name in arrays}
    files = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    verified = json.dumps({"sequences_sha256": expected, "files": files}).encode()
    dataset = folder.parent.absolute()
    remembered = dataset.with_name(f".{dataset.name}.verified.json")
    if remembered.is_file() and remembered.read_bytes() == verified:
        return
    digest = hashlib.sha256()
    size = sum(array.nbytes for array in arrays.values())
    with progress(total=size, desc=f"verifying {dataset.name}", unit="B", unit_scale=True) as bar:
        for array in arrays.values():
            for _, chunk in _chunks(array):
                digest.update(chunk.data)
                bar.update(chunk.nbytes)
    if digest.hexdigest() != expected:
        raise UserError(f"{folder} has the sha256 {digest.hexdigest()} where manifest.json says {expected}: {REPAIR}")
    if time.time() - max(stat.st_mtime for stat in stats.values()) < SETTLED_SECONDS:
        return
    try:
        with write_atomically(remembered) as file:
            file.write(verified)
    except OSError as error:  # a read-only disk: the next opening verifies again
        log.debug("%s can't be written: %s", remembered, error)


def read_table(file: Path, column: str, first: int, size: int, others: tuple[str, ...]) -> pl.DataFrame:
    """Return items.parquet or users.parquet.

    Args:
        file: The file; never a pattern.
        column: The number's column, `item` or `user`.
        first: The first number; they go up by one.
        size: Number of rows.
        others: The further columns, all str.

    Raises:
        MissingFileError: If the file is missing.
        UserError: If it is not such a table.
    """
    table = read_parquet(file, REPAIR)
    expected = pl.Schema({column: pl.Int32, **dict.fromkeys(others, pl.String)})
    if table.schema != expected or len(table) != size:
        raise UserError(
            f"{file} has {len(table):,} rows of {dict(table.schema)} where manifest.json says {size:,} of "
            f"{dict(expected)}: {REPAIR}"
        )
    gaps = sum(table.null_count().row(0))
    if gaps or not np.array_equal(table[column].to_numpy(), np.arange(first, first + size)):
        raise UserError(f"{file}: {gaps:,} values are missing, or {column!r} does not count up from {first}: {REPAIR}")
    return table


def write_table(table: pl.DataFrame, column: str, first: int, file: Path) -> None:
    """Write a table as `read_table` reads it: its rows get the numbers `first`, first + 1, ... in that column."""
    numbers = pl.Series(column, np.arange(first, first + len(table), dtype=np.int32))
    with write_atomically(file) as target:
        table.select(numbers, pl.all()).write_parquet(
            target, compression="zstd", compression_level=3, row_group_size=1 << 20
        )


def check_item_ids(file: Path, raw_ids: pl.Series, expected: str) -> None:
    """Compare the raw ids of items.parquet with the manifest's hash of them.

    Raises:
        UserError: If they differ.
    """
    found = hash_item_ids(raw_ids.to_list())
    if found != expected:
        raise UserError(f"{file}: the ids' sha256 is {found} where manifest.json says {expected}: {REPAIR}")


def hash_item_ids(raw_ids: list[str]) -> str:
    """Return the sha256 of the raw item ids in item order."""
    return hashlib.sha256("\n".join(raw_ids).encode()).hexdigest()
