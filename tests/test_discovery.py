"""Datasets by name or folder: the demo and raw folders are prepared when a command first names them, and once."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data import discovery
from seqrec.data.discovery import open_dataset
from seqrec.data.preparation import prepare
from tests.conftest import write_dataset

CONTENT: dict[str, Any] = {
    "train": {0: [0, 1], 1: [2, 1]},
    "val": {0: [2], 1: [3]},
    "test": {0: [3], 1: [0]},
    "smap": {"a": 0, "b": 1, "c": 2, "d": 3},
}
META = {key: {"title": f"Item {key}"} for key in CONTENT["smap"]}


def write_json_folder(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    for name, value in (CONTENT | {"meta_data": META} | changes).items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def write_pickle(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "dataset.pkl").write_bytes(pickle.dumps(CONTENT | changes))
    return folder


@pytest.fixture
def _prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to prepare a dataset a second time."""
    names = set[str]()

    def once(config: Any) -> Path:
        assert config.name not in names
        names.add(config.name)
        return prepare(config)

    monkeypatch.setattr(discovery, "prepare", once)


@pytest.mark.usefixtures("_prepared_once")
def test_a_demo_is_prepared_when_it_is_first_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    dataset = open_dataset("demo-small", None, tmp_path)
    assert (dataset.name, dataset.path) == ("demo-small", tmp_path / "demo-small")
    assert f"preparing the made-up shop demo-small (300 users) in {tmp_path}" in caplog.text
    assert open_dataset("demo-small", None, tmp_path).sequences_sha256 == dataset.sequences_sha256


def test_without_flags_it_is_the_demo(tmp_path: Path) -> None:
    write_dataset(tmp_path / "demo", [[1, 2, 3]], 3)
    assert open_dataset(None, None, tmp_path).num_items == 3


@pytest.mark.usefixtures("_prepared_once")
@pytest.mark.parametrize("write", [write_json_folder, write_pickle])
def test_a_raw_folder_is_prepared_once_for_its_content(write: Any, tmp_path: Path) -> None:
    data, raw = tmp_path / "data", write(tmp_path / "raw" / "Pantry")
    first = open_dataset(None, raw, data)
    assert (first.name, first.num_users, first.num_items) == ("Pantry", 2, 4)
    assert first.items.tolist() == [1, 2, 3, 4, 3, 2, 4, 1]  # train, val and test of each user; ids from 1
    shutil.copytree(raw, tmp_path / "elsewhere" / "Other")
    assert open_dataset(None, raw, data).path == open_dataset(None, tmp_path / "elsewhere/Other", data).path
    changed = open_dataset(None, write(tmp_path / "new" / "Pantry", train={0: [1, 0], 1: [2, 1]}), data)
    assert changed.name.startswith("Pantry-") and changed.items.tolist() == [2, 1, 3, 4, 3, 2, 4, 1]
    assert sorted(path.name for path in data.iterdir() if not path.name.startswith(".")) == ["Pantry", changed.name]


def test_published_data_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "ROOT", tmp_path)
    settings = "Pantry_min_rating0-min_uc4-min_sc0-splitleave_one_out"
    write_pickle(tmp_path / "SASRec" / "preprocessed" / settings)
    write_pickle(tmp_path / "Bert4Rec" / "Data" / "preprocessed" / settings)  # the same data
    assert open_dataset("Pantry", None, tmp_path / "data").name == "Pantry"
    write_json_folder(tmp_path / "Recformer" / "finetune_data" / "Arts")
    assert open_dataset("Arts", None, tmp_path / "data").attributes == ("title",)
    write_pickle(tmp_path / "SASRec" / "preprocessed" / "Arts", train={0: [1, 0], 1: [2, 1]})
    assert open_dataset("Arts", None, tmp_path / "data").name == "Arts"  # it is prepared already
    with pytest.raises(
        UserError, match=r"--dataset Arts could be Recformer/.* or SASRec/preprocessed/Arts, which differ"
    ):
        open_dataset("Arts", None, tmp_path / "others")


@pytest.mark.parametrize("name", ["nothing", "de*", "[a-z]*"])
def test_an_unknown_name_lists_what_there_is(name: str, tmp_path: Path) -> None:
    write_dataset(tmp_path / "shop", [[1, 2, 3]], 3)
    with pytest.raises(MissingFileError, match=r"is not a prepared dataset.*has \['shop'\].*prepare\.py"):
        open_dataset(name, None, tmp_path)


def test_a_name_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--dataset must be a plain name"):
        open_dataset("../shop", None, tmp_path)


def test_both_flags_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one of --dataset NAME"):
        open_dataset("demo", tmp_path, tmp_path)
