"""A command's --help comes soon: what trains is imported when it trains."""

import subprocess
import sys

import pytest

from seqrec.basics.paths import ROOT

FILES = (path for path in sorted(ROOT.glob("*/*.py")) if path.parent.name != "tests")
COMMANDS = [path for path in FILES if "run_command(main" in path.read_text(encoding="utf-8")]
SLOW = ("pytorch_lightning", "transformers", "deepspeed", "peft", "pandas", "torchmetrics")
"""Packages that take a second or more to import."""
WITHOUT_TORCH = {
    "compare",
    "prepare",
    "sweep",
    "sweep_table",
    "curves",
    "embedding_report",
    "recommend",
    "shuffle_test",
}


def test_the_commands_are_found() -> None:
    assert {path.stem for path in COMMANDS} >= {"finetune", "pretrain", "encode", *WITHOUT_TORCH}


@pytest.mark.parametrize("folder", sorted({path.parent.name for path in COMMANDS}))
def test_a_command_imports_nothing_slow_before_it_knows_its_flags(folder: str) -> None:
    names = [f"{folder}.{path.stem}" for path in COMMANDS if path.parent.name == folder]
    names.sort(key=lambda name: name.split(".")[1] not in WITHOUT_TORCH)
    lines = [
        "import importlib, sys",
        f"for name in {names!r}:",
        "    importlib.import_module(name)",
        f"    slow = [found for found in {SLOW!r} if found in sys.modules]",
        "    assert not slow, f'{name} imports {slow}'",
        f"    if name.split('.')[1] in {WITHOUT_TORCH!r}: assert 'torch' not in sys.modules, f'{{name}} imports torch'",
    ]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-800:]


def test_a_run_does_not_load_the_models_of_transformers_for_metrics_of_texts() -> None:
    lines = [
        "import sys",
        "from seqrec.basics.imports import leave_out_text_metrics",
        "for _ in range(2 * sys.getrecursionlimit()): leave_out_text_metrics()",  # as many commands of one process do
        "import pytorch_lightning",
        "assert 'torchmetrics' in sys.modules and 'transformers' not in sys.modules",
    ]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-800:]
