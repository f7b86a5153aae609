"""The README's first command, whole, on a tiny shop, in a folder with a space in its name, from another directory."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def copy_project(folder: Path) -> Path:
    """Copy what git knows of the project, and lend the copy this environment."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def test_quickstart_goes_from_nothing_to_the_comparison(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "a folder")
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
