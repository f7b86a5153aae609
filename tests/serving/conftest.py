"""A trained run and its export."""

from pathlib import Path

import pytest

from seqrec.serving.export import export_run
from seqrec.serving.options import ExportOptions
from tests.interrupted import Command


@pytest.fixture(scope="session")
def served_run(texts_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SASRec of a few seconds."""
    flags = ("--hidden_units", "16", "--maxlen", "7", "--num_epochs", "2", "--temp", "0.5")
    command = Command("SASRec", texts_path, tmp_path_factory.mktemp("served") / "runs", flags)
    command.run()
    return command.folder


@pytest.fixture(scope="session")
def exported(served_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export."""
    folder = tmp_path_factory.mktemp("exports") / "sasrec"
    export_run(served_run, folder, "our-model", (None, None), False, ExportOptions())
    return folder
