"""The notebook and the Python examples of docs/library.md run, in a copy of the project."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from seqrec.basics.paths import ROOT
from tests.clones import copy_project

NOTEBOOK = json.loads((ROOT / "docs" / "tour.ipynb").read_text(encoding="utf-8"))
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "docs" / "library.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
JUPYTER = "from IPython.display import Image\n"
WITHOUT = "def Image(data, width):\n    assert data.startswith(b'\\x89PNG')\n"
"""The tests do without Jupyter."""


def test_the_notebook_is_executed_and_shows_no_error() -> None:
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    outputs = [output for cell in CELLS for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert "/tmp" not in json.dumps(NOTEBOOK)


@pytest.mark.skipif(not (ROOT / "Recformer").is_dir() or not (ROOT / "SASRec").is_dir(), reason="needs both families")
def test_every_cell_and_every_example_runs(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "a project")
    program = "\n".join(["".join(cell["source"]) for cell in CELLS] + EXAMPLES)
    program += "\nassert len(runs) == 7 and len(ranks) == 7 * 300 and len(best) == 3 and len(vectors) == 197\n"
    assert JUPYTER in program
    (tmp_path / "tour.py").write_text(program.replace(JUPYTER, WITHOUT))
    run = subprocess.run(
        [sys.executable, str(tmp_path / "tour.py")],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project), "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Mean ± sd over seeds; Δ to SASRec/none" in run.stdout
