"""A prepared dataset whose files are not what its manifest says is refused; what was verified is remembered."""

import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data import dataset_files
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.data.dataset_files import read_manifest
from tests.conftest import write_dataset

HISTORIES = [[1, 2, 3, 4], [2, 5], [6], [3, 3, 1]]
TIMES = [[1, 2, 3, 4], [5, 6], [7], [8, 9, 10]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "shop", HISTORIES, 6, TIMES)


def save(folder: Path, name: str, values: Any, dtype: type = np.int64) -> None:
    np.save(folder / "sequences" / f"{name}.npy", np.array(values, dtype=dtype))


def make_old(folder: Path, seconds: int = 1_600_000_000) -> None:
    for path in (folder / "sequences").iterdir():
        os.utime(path, (seconds, seconds))


def remember(folder: Path) -> Path:
    """Open a dataset of old files and return the file that remembers what was verified."""
    make_old(folder)
    load_dataset(folder)
    return folder.with_name(".shop.verified.json")


@pytest.mark.parametrize(
    ("name", "values", "dtype", "message"),
    [
        ("offsets", [0, 4, 6, 5, 10], np.int64, "the history of user 2 begins at 6 and ends at 5"),
        ("offsets", [0, 4, -3, 7, 10], np.int64, "the history of user 1 begins at 4 and ends at -3"),
        ("offsets", [0, 400, 6, 7, 10], np.int64, "the history of user 1 begins at 400 and ends at 6"),
        ("offsets", [2, 4, 6, 7, 10], np.int64, "2 to 10, expected 0 to 10"),
        ("offsets", [0, 4, 6, 7, 9], np.int64, "0 to 9, expected 0 to 10"),
        ("offsets", [0, 4, 6, 10], np.int64, r"shape \(4,\) where manifest.json says int64 of shape \(5,\)"),
        ("offsets", [0, 4, 6, 7, 10], np.float64, "float64 of shape"),
        ("items", [1, 2, 0, 4, 2, 5, 6, 3, 3, 1], np.int32, "event 2 is item 0, expected 1 to 6"),
        ("items", [1, 2, 3, 4, 2, 5, 6, 3, 3, 7], np.int32, "event 9 is item 7, expected 1 to 6"),
        ("items", [1, 3, 3, 6, 5, 2, 4, 3, 2, 1], np.int32, "has the sha256 .* where manifest.json says"),
        ("items", [1, 2, 3, 4, 2, 5, 6, 3, 3, 1], np.float64, "holds float64"),
        ("items", [[1, 2, 3, 4, 2, 5, 6, 3, 3, 1]], np.int32, r"shape \(1, 10\)"),
        (
            "items",
            [1, 2, 3, 4, 2, 5, 6, 3, 3],
            np.int32,
            r"shape \(9,\) where manifest.json says int32 of shape \(10,\)",
        ),
        ("timestamps", [1, 2], np.int64, r"shape \(2,\)"),
        ("timestamps", [1, 2, 3, 4, 5, 6, 7, 8, 10, 9], np.int64, "has the sha256"),
    ],
)
def test_a_damaged_array_is_refused(
    folder: Path, name: str, values: list[Any], dtype: type, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_files, "CHUNK", 2)  # so that a fault lies in any chunk, and between two
    load_dataset(folder)
    save(folder, name, values, dtype)
    with pytest.raises(UserError, match=f"{message}.*prepare it again"):
        load_dataset(folder)


def test_a_file_that_is_missing_or_not_an_array(folder: Path) -> None:
    file = folder / "sequences" / "items.npy"
    whole = file.read_bytes()
    for content in (b"", b"\x93NUMPY", whole[:40], whole[:-1], b"PK\x03\x04" + whole, b"hello"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"items\.npy is no whole \.npy file .*prepare it again"):
            load_dataset(folder)
    file.unlink()
    with pytest.raises(MissingFileError, match=r"items\.npy does not exist"):
        load_dataset(folder)


def test_a_changed_hash_in_the_manifest_is_refused_although_the_files_were_verified(folder: Path) -> None:
    assert remember(folder).is_file()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sequences_sha256": "0" * 64}))
    with pytest.raises(UserError, match=r"where manifest\.json says 0000"):
        load_dataset(folder)


def test_the_hash_is_computed_once_per_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda *data: hashed.append(data) or sha256(*data))  # type: ignore[func-returns-value]
    assert remember(folder).is_file()
    load_dataset(folder)
    assert len(hashed) == 1
    make_old(folder, 1_600_000_001)
    load_dataset(folder)
    assert len(hashed) == 2
    save(folder, "timestamps", [9, *range(2, 11)])
    with pytest.raises(UserError, match="has the sha256"):
        load_dataset(folder)


def test_a_file_that_changed_just_now_is_not_remembered_as_verified(folder: Path) -> None:
    load_dataset(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["shop"]


@pytest.mark.parametrize("content", ["[]", "{", '{"sequences_sha256": 3}', "[" * 100_000])
def test_a_faulty_memory_of_what_was_verified_is_made_again(folder: Path, content: str) -> None:
    remembered = remember(folder)
    remembered.write_text(content)
    load_dataset(folder)
    assert json.loads(remembered.read_text())["files"]["items"][0] == 10 * 4 + 128  # a header of 128 bytes


def test_where_nothing_can_be_written_every_opening_verifies(folder: Path) -> None:
    make_old(folder)
    folder.with_name(".shop.verified.json").mkdir()  # what can't be written, even by root
    assert load_dataset(folder).num_items == 6


# --- the manifest


def rewritten(**fields: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda manifest: json.dumps(manifest | fields).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: b"[]", "holds a list of 0, expected an object"),
        (lambda manifest: b"null", "holds null"),
        (lambda manifest: b"", "is empty"),
        (lambda manifest: json.dumps(manifest).encode()[:-3], "not JSON"),
        (lambda manifest: b"[" * 100_000, "nests brackets deeper than 100 levels"),
        (lambda manifest: b'{"name": "\xff"}', r"not UTF-8 \(byte 10\)"),
        (lambda manifest: b'{"format": 1}', "name is 'None', expected str"),
        (rewritten(format=2), "has format 2, expected 1: prepare the dataset again"),
        (rewritten(num_users="4"), "num_users is '4', expected int"),
        (rewritten(num_items=True), "num_items is 'True', expected int"),
        (rewritten(num_interactions=-1), "num_interactions is '-1', expected int"),
        (rewritten(attributes="title"), "attributes is 'title', expected list"),
        (rewritten(attributes=[1]), "expected names"),
        (rewritten(source=[]), "source is .*expected dict"),
        (rewritten(item_ids_sha256=None), "item_ids_sha256 is 'None', expected str"),
        (rewritten(name="../../../escname"), "must be a plain name .* got '../../../escname'"),
        (rewritten(name=".."), "must be a plain name"),
        (rewritten(name=""), "must be a plain name"),
        (rewritten(num_items=5), "event 6 is item 6, expected 1 to 5"),
        (rewritten(num_users=5), r"where manifest.json says int64 of shape \(6,\)"),
    ],
)
def test_a_faulty_manifest_is_refused(folder: Path, change: Callable[[dict[str, Any]], bytes], message: str) -> None:
    file = folder / "manifest.json"
    file.write_bytes(change(json.loads(file.read_text())))
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(folder)
    assert str(file.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_random_damage_of_any_file_is_refused_or_harmless(folder: Path) -> None:
    """Bytes are overwritten, cut and put in: what opens all the same holds the very values."""
    whole = load_dataset(folder)
    expected = (whole.items.tolist(), whole.offsets.tolist(), whole.item_table().rows(), whole.user_table().rows())
    draw = random.Random(3)
    refused = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "timestamps.npy"):
        content = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(content)
            start = draw.randrange(len(damaged))
            stop = start + draw.choice([1, 1, 4, 30])
            damaged[start:stop] = bytes(draw.randrange(256) for _ in range(draw.choice([0, stop - start])))
            path.write_bytes(damaged)
            try:
                dataset = load_dataset(folder)
                tables = dataset.item_table(), dataset.user_table()
            except UserError:
                refused += 1
                continue
            assert (dataset.items.tolist(), dataset.offsets.tolist()) == expected[:2]
            if path.name == "manifest.json":  # a field such as the name may read otherwise
                continue
            assert tables[0]["raw_id"].to_list() == [row[1] for row in expected[2]]
            assert tables[1]["user"].to_list() == [row[0] for row in expected[3]]
        path.write_bytes(content)
    assert refused > 100


# --- the tables


def change_table(folder: Path, name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Dataset:
    file = folder / f"{name}.parquet"
    change(pl.read_parquet(file)).write_parquet(file)
    return load_dataset(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.with_columns(pl.col("raw_id").reverse()), "the ids' sha256 is"),
        (lambda table: table.reverse(), "'item' does not count up from 1"),
        (lambda table: table.head(5), "has 5 rows of .* where manifest.json says 6"),
        (lambda table: table.drop("title"), "manifest.json says 6 of .*title"),
        (lambda table: table.with_columns(pl.col("item").cast(pl.Float64)), "Float64"),
        (lambda table: table.with_columns(title=pl.lit(None, pl.String)), "6 values are missing"),
    ],
)
def test_items_that_are_not_the_manifests(
    folder: Path, change: Callable[[pl.DataFrame], pl.DataFrame], message: str
) -> None:
    dataset = change_table(folder, "items", change)
    with pytest.raises(UserError, match=message):
        dataset.item_table()


def test_users_that_are_not_the_manifests(folder: Path) -> None:
    dataset = change_table(folder, "users", lambda table: table.head(3))
    with pytest.raises(UserError, match=r"has 3 rows of .* where manifest\.json says 4"):
        dataset.user_table()
    (folder / "users.parquet").write_bytes(b"PAR1, once")
    with pytest.raises(UserError, match=r"users\.parquet is no whole Parquet file"):
        dataset.user_table()
    (folder / "users.parquet").unlink()
    with pytest.raises(MissingFileError, match=r"users\.parquet does not exist"):
        dataset.user_table()


@pytest.mark.parametrize("names", [("a*b", "a\\b"), ("a[b]", "ab"), ("?", "x"), ("k=v", "k")])
def test_a_datasets_name_is_no_pattern(tmp_path: Path, names: tuple[str, str]) -> None:
    first, second = (write_dataset(tmp_path / name, [[1, 2]], 2) for name in names)
    change_table(second, "items", lambda table: table.with_columns(raw_id=pl.Series(["x", "y"])))
    assert load_dataset(first).item_table()["raw_id"].to_list() == ["item-1", "item-2"]
    assert load_dataset(first).item_table().columns == ["item", "raw_id", "title"]


def test_a_manifest_is_read_as_written(folder: Path) -> None:
    assert read_manifest(folder / "manifest.json") == json.loads((folder / "manifest.json").read_text())
