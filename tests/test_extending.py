"""The worked example of docs/extending.md: a family whose files stand in the document."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seqrec.basics.paths import ROOT
from tests.clones import copy_project

GUIDE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(FMC/\w+\.(?:py|sh))`.*?^```\w+\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the example's files in it."""
    folder = copy_project(tmp_path_factory.mktemp("example") / "project")
    (folder / "FMC").mkdir()
    (folder / "FMC" / "__init__.py").write_text('"""The factorised Markov chain."""\n')
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def run(project: Path, *words: str) -> str:
    """Return what a command of the copy prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(project)}
    done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def test_the_example_is_whole_and_short() -> None:
    assert set(FILES) == {f"FMC/{name}" for name in ("data.py", "model.py", "module.py", "finetune.py", "finetune.sh")}
    code = [line for name, text in FILES.items() if name.endswith(".py") for line in text.splitlines() if line]
    assert len(code) < 100


def test_it_trains_resumes_recommends_and_is_compared(project: Path, tiny_path: Path) -> None:
    flags = ["--data_path", str(tiny_path), "--accelerator", "cpu", "--lr", "0.01"]
    command = ["bash", "FMC/finetune.sh", *flags, "--num_epochs", "40"]
    run(project, *command)
    folder = project / "runs" / "FMC" / "tiny" / "none-seed42"
    metrics = json.loads((folder / "metrics.json").read_text())
    # In the tiny dataset two steps of five lead to the item's successor, which a chain of order one can learn.
    assert metrics["test"]["Recall@1"] > 0.2
    ranks = np.load(folder / "ranks-test.npy")
    recommend = ("scripts/recommend.py", str(folder), "--history", "item-3", "--top_k", "1", "--device", "cpu")
    assert "item-4" in run(project, sys.executable, *recommend)
    shown = run(project, sys.executable, "scripts/compare.py", "--dataset", "tiny", "--data_dir", str(tiny_path.parent))
    assert re.search(r"FMC +none +one seed", shown)
    (folder / "metrics.json").unlink()
    run(project, *command, "--resume")
    np.testing.assert_array_equal(np.load(folder / "ranks-test.npy"), ranks)


def test_it_keeps_the_rules_for_families(project: Path) -> None:
    run(project, sys.executable, "-m", "ruff", "check", "--ignore", "D102,D101", "FMC")
    tests = ("tests/test_families.py", "tests/test_layering.py", "tests/test_help.py")
    run(
        project,
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *tests,
        "-k",
        "(FMC or circle or star) and not deleting",
    )
