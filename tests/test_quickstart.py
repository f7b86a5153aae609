"""The README's first command, whole, on a tiny shop, in a folder with a space in its name, from another directory."""

import json
import os
import subprocess
from pathlib import Path

from seqrec.basics.paths import ROOT
from tests.clones import copy_project, shrink


def test_quickstart_goes_from_nothing_to_the_comparison(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "a folder")
    shrink(project)
    run = subprocess.run(
        ["bash", str(project / "scripts" / "quickstart.sh"), "--num_users", "150", "--num_items", "100"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    for init_type in ("longformer", "finetune"):
        assert (project / "embedding" / "demo" / f"{init_type}.npy").is_file()
    folder = project / "runs" / "compare" / "demo"
    comparison = json.loads((folder / "comparison.json").read_text())
    assert comparison["dataset"] == "demo"
    for name in ("comparison.png", "comparison.html"):
        assert (folder / name).stat().st_size > 1000
        assert str(folder / name) in run.stdout
    for family in ("SASRec", "Bert4Rec"):
        assert {p.name for p in (project / "runs" / family / "demo").iterdir()} == {
            f"{init_type}-seed42" for init_type in ("none", "longformer", "finetune")
        }


def test_own_data_needs_a_name(tmp_path: Path) -> None:
    run = subprocess.run(
        ["bash", str(ROOT / "scripts" / "quickstart.sh"), "--source", "atomic", "--input", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert "--name NAME" in run.stderr
