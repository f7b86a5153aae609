"""The scripts of the published tables: each runs from anywhere, and every command in it has flags that exist."""

import importlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts.sweep import Config as SweepConfig
from scripts.sweep import own_words
from seqrec.basics.command import run_command
from seqrec.basics.paths import ROOT

RECIPES = sorted(path.name for path in (ROOT / "scripts" / "recipes").glob("*.sh") if path.name != "common.sh")


def commands_of(recipe: str, folder: Path) -> list[list[str]]:
    """Return what a recipe gives to Python, run where a program that writes its words down stands in for Python."""
    project, log = folder / "a project", folder / "log"
    for path in [*ROOT.glob("scripts/**/*.sh"), *ROOT.glob("*/*.sh")]:
        copy = project / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        '#!/usr/bin/env bash\nprintf \'%s\\037\' "$@" >> "$SEQREC_LOG"\nprintf \'\\036\' >> "$SEQREC_LOG"\n'
    )
    python.chmod(0o755)
    domain = folder / "raw data" / "pretrain-corpus" / "arts"
    domain.mkdir(parents=True)
    (domain / "interactions.parquet").touch()
    subprocess.run(
        ["bash", str(project / "scripts" / "recipes" / recipe), "raw data"],
        cwd=folder,
        env=os.environ | {"SEQREC_LOG": str(log)},
        check=True,
    )
    commands = [line.split("\037")[:-1] for line in log.read_text().split("\036")[:-1]]
    return [[words[0].removeprefix(f"{project}/"), *words[1:]] for words in commands if words[0] != "-c"]


def parse(script: str, words: Sequence[str]) -> None:
    """Read the flags of a command as it would, and run nothing."""
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    if script == "scripts/sweep.py":
        words = own_words(words)
    config = getattr(module, "Config", None) or module.Source
    run_command(lambda _: None, config, words, getattr(module, "PUBLISHED", None))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_command_has_flags_that_exist(recipe: str, tmp_path: Path) -> None:
    commands = commands_of(recipe, tmp_path)
    assert len(commands) >= 4
    for script, *words in commands:
        parse(script, words)
        if script.endswith("/finetune.py"):
            assert words[-1] == "--resume"  # the recipe can be given again
        if script == "scripts/sweep.py":
            found: list[SweepConfig] = []
            run_command(found.append, SweepConfig, own_words(words))
            for arm in found[0].arms:
                for column in found[0].columns or ("",):
                    parse(f"{found[0].family}/finetune.py", f"{found[0].flags} {arm} {column}".split())


def test_a_recipe_without_its_input_says_what_it_wants(tmp_path: Path) -> None:
    run = subprocess.run(
        ["bash", str(ROOT / "scripts" / "recipes" / RECIPES[0])], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode and "FOLDER holds the raw data" in run.stderr


def test_results_name_every_recipe() -> None:
    documents = "".join(
        (ROOT / name).read_text() for name in ("docs/results.md", "docs/speed.md", "Recformer/README.md")
    )
    assert all(f"scripts/recipes/{recipe}" in documents for recipe in RECIPES)
