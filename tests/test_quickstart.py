"""The README's first command, whole, on a tiny shop, in a folder with a space in its name, from another directory."""

import json
import os
import subprocess
import urllib.request
from pathlib import Path

from seqrec.basics.paths import ROOT
from seqrec.serving.process import running_service
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
    # What it says of serving is true of what it has made.
    words = run.stdout[run.stdout.index("scripts/serve.py") :].split()
    folders = [project / word for word in words if word.startswith(("exports/", "runs/"))]
    with running_service(*folders, script=project / "scripts/serve.py") as (_, address):
        with urllib.request.urlopen(f"{address}/models", timeout=60) as answer:
            models = [model["name"] for model in json.load(answer)["models"]]
        assert len(models) == 4 and models[:2] == ["sasrec-none", "sasrec-finetune"]
        for model in models:
            body = json.dumps({"history": ["D000001", "D000002"], "k": 4, "model": model, "allow": None}).encode()
            request = urllib.request.Request(f"{address}/recommend", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert len(json.load(answer)["items"]) == 4


def test_own_data_needs_a_name(tmp_path: Path) -> None:
    run = subprocess.run(
        ["bash", str(ROOT / "scripts" / "quickstart.sh"), "--source", "atomic", "--input", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert "--name NAME" in run.stderr
