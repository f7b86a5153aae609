"""A run, its checkpoint and item vectors that an earlier version wrote still load; they lie in `past/`."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from seqrec.comparison.results import read_run
from seqrec.comparison.tables import compare_runs
from seqrec.data.dataset import Dataset
from seqrec.data.vectors import embedding_path, load_embeddings
from tests.interrupted import Command
from tests.recommending import assert_recommends_as_it_was_tested

PAST = Path(__file__).parent / "past"
FLAGS = ("--hidden_units", "8", "--num_blocks", "1", "--maxlen", "10", "--num_epochs", "3", "--lr", "0.01")


@pytest.fixture
def command(tiny_path: Path, tmp_path: Path) -> Command:
    command = Command("SASRec", tiny_path, tmp_path / "runs", FLAGS)
    (command.folder / "checkpoints").mkdir(parents=True)
    for name in ("config.json", "metrics.json", "ranks-test.npy"):
        shutil.copy(PAST / name, command.folder)
    shutil.copy(PAST / "best.ckpt", command.folder / "checkpoints")
    return command


def test_a_run_of_the_past_recommends_as_it_was_tested(command: Command, tiny_path: Path) -> None:
    assert_recommends_as_it_was_tested(command.folder, tiny_path)


def test_it_is_compared(command: Command, tiny_path: Path) -> None:
    run = read_run(command.folder)
    assert (run.family, run.group, run.epochs) == ("SASRec", "none", 3)
    compare_runs(command.runs, tiny_path.parent, "tiny")


def test_it_is_finished_and_other_flags_are_refused(command: Command) -> None:
    before = (command.folder / "metrics.json").stat().st_mtime_ns
    command.run("--resume")  # flags that it lacks have the values that they had then
    assert (command.folder / "metrics.json").stat().st_mtime_ns == before
    with pytest.raises(RuntimeError, match=r"weight_decay was 0\.0 and is 0\.1"):
        command.run("--resume", "--weight_decay", "0.1")


def test_item_vectors_of_the_past_load(tiny: Dataset, tmp_path: Path) -> None:
    path = embedding_path(tiny, "text", tmp_path)
    path.parent.mkdir(parents=True)
    for name in ("text.npy", "text.json"):
        shutil.copy(PAST / name, path.with_name(name))
    vectors = load_embeddings("text", tiny, tmp_path)
    expected = np.arange(164, dtype=np.float32).reshape(41, 4) / 10
    expected[0] = 0
    np.testing.assert_array_equal(vectors, expected)
