"""One thread for everything, a prepared dataset written from lists, and a tiny one for runs.

`SEQREC_TEST_BF16=yes bash scripts/test.sh` runs the tests as if the machine multiplied bfloat16 in hardware, `no` as if
it did not: nothing may depend on it. It reaches this process and those that `tests/forked.py` starts.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: spinning threads cost more than they give

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import settings
from numpy.typing import NDArray

from seqrec.comparison.tables import Comparison, compare_runs
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.data.dataset_files import hash_item_ids
from tests import studies
from tests.forked import pretend_bfloat16

torch.set_num_threads(1)
pretend_bfloat16(os.environ.get("SEQREC_TEST_BF16"))
# The same examples in every run, and no deadline: how long one takes says more about the machine than about the code.
settings.register_profile("project", deadline=None, derandomize=True, database=None)
settings.load_profile("project")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `--full` try five times as many hostile inputs."""
    parser.addoption("--full", action="store_true", help="try five times as many hostile inputs; see tests/hostile")


def write_dataset(
    folder: Path, histories: Sequence[Sequence[int]], num_items: int, timestamps: Sequence[Sequence[int]] | None = None
) -> Path:
    """Write a prepared dataset from users' item lists, by the contract rather than by the project's own writer."""
    raw_ids = [f"item-{i}" for i in range(1, num_items + 1)]
    arrays: dict[str, NDArray[np.generic]] = {
        "offsets": np.cumsum([0, *map(len, histories)], dtype=np.int64),
        "items": np.array([item for history in histories for item in history], dtype=np.int32),
    }
    if timestamps is not None:
        arrays["timestamps"] = np.array([time for times in timestamps for time in times], dtype=np.int64)
    (folder / "sequences").mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / "sequences" / f"{name}.npy", array)
    titles = [f"Title of {raw_id}" for raw_id in raw_ids]
    numbers = pl.Series("item", range(1, num_items + 1), dtype=pl.Int32)
    pl.DataFrame({"item": numbers, "raw_id": raw_ids, "title": titles}).write_parquet(folder / "items.parquet")
    users = pl.Series("user", range(len(histories)), dtype=pl.Int32)
    pl.DataFrame({"user": users, "raw_id": [f"user-{u}" for u in range(len(histories))]}).write_parquet(
        folder / "users.parquet"
    )
    manifest = {
        "format": 1,
        "name": folder.name,
        "num_users": len(histories),
        "num_items": num_items,
        "num_interactions": int(arrays["offsets"][-1]),
        "attributes": ["title"],
        "has_timestamps": timestamps is not None,
        "source": {"kind": "lists"},
        "item_ids_sha256": hash_item_ids(raw_ids),
        "sequences_sha256": hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 90 users over 40 items, 60 steps of noise in every hundred, that trains in milliseconds."""
    generator = np.random.default_rng(7)
    histories = []
    for _ in range(90):
        history = [int(generator.integers(1, 41))]
        for _ in range(int(generator.integers(2, 12))):
            step = history[-1] % 40 + 1
            history.append(step if generator.random() < 0.4 else int(generator.integers(1, 41)))
        histories.append(history)
    return write_dataset(tmp_path_factory.mktemp("data") / "tiny", histories, 40)


@pytest.fixture(scope="session")
def tiny(tiny_path: Path) -> Dataset:
    """The tiny dataset, loaded."""
    return load_dataset(tiny_path)


@pytest.fixture(scope="session")
def texts_path(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset with titles of 1 to 12 words."""
    folder = Path(shutil.copytree(tiny_path, tmp_path_factory.mktemp("texts") / "texts"))
    words = ("red", "green", "blue", "small", "large", "old", "new", "round", "square", "soft", "loud", "fast")
    titles = [" ".join(words[: 1 + 5 * item % 12]) + f" {item}" for item in range(40)]
    pl.read_parquet(folder / "items.parquet").with_columns(title=pl.Series(titles)).write_parquet(
        folder / "items.parquet"
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"name": "texts"}))
    return folder


@pytest.fixture(scope="session")
def texts(texts_path: Path) -> Dataset:
    """The tiny dataset with titles of many lengths, loaded."""
    return load_dataset(texts_path)


@pytest.fixture(scope="session")
def study_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three families of three seeds in runs/, a prepared dataset in data/, for all tests that only look."""
    root = tmp_path_factory.mktemp("study")
    histories = [
        [1] if u == 0 else [1 + (u * s) % studies.ITEMS for s in range(1, 4 + u % 20)] for u in range(studies.USERS)
    ]
    hashes = studies.write_dataset(root / "data" / "toy", histories)
    studies.write_study(root / "runs", **hashes)
    (root / "runs" / "SASRec" / "toy" / "pretrain-seed42").mkdir(parents=True)
    (root / "runs" / "SASRec" / "toy" / "pretrain-seed42" / "config.json").write_text("{}")
    (root / "runs" / "sweeps" / "toy" / "logs").mkdir(parents=True)  # no run
    return root


@pytest.fixture(scope="session")
def study(study_root: Path) -> Comparison:
    return compare_runs(study_root / "runs", study_root / "data", "toy")
