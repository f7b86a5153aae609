"""What the documents say exists: the files and headings that they link to, the commands and their flags."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from seqrec.basics.paths import ROOT
from tests.test_recipes import parse

DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")))
LAUNCHERS = {"finetune.sh": "finetune.py", "lightning_run.sh": "pretrain.py"}
NO_FLAGS_OF_THEIR_OWN = {"quickstart.sh", "test.sh", "setup.sh", "setup_peer.sh", "zero_to_fp32.py"}
VALUES = {"seed": "1", "baseline": "popularity", "init_type": "none"}
"""What stands for a shell variable."""


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_and_headings(document: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / document).parent / name if name else ROOT / document
        assert target.exists(), f"{document} links to {link}"
        assert not anchor or anchor in anchors(target), f"{document} links to {link}, but there is no such heading"


def commands(document: str) -> Iterator[list[str]]:
    """Yield the commands of a document's shell blocks as words, variables replaced."""
    for block in re.findall(r"^```(?:bash|sh)\n(.*?)^```$", text_of(document), re.MULTILINE | re.DOTALL):
        if block.startswith("#!"):  # a file, not what one types
            continue
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"\$\{?(\w+)\}?", lambda found: VALUES.get(found[1], found[1]), line)
            words = shlex.split(line, comments=True)
            for part in " ".join(shlex.quote(word) for word in words).split(" && "):
                yield shlex.split(part)


def scripts_of(document: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the project's Python commands of a document: the script, and what it is given."""
    for words in commands(document):
        place = next((i for i, word in enumerate(words) if re.fullmatch(r"[\w/]+\.(py|sh)", word)), None)
        if place is None or (ROOT / words[place]).name in NO_FLAGS_OF_THEIR_OWN:
            continue
        script = words[place]
        own = ROOT / Path(document).parent / script  # a family's README may speak from within its folder
        path = own if own.is_file() else ROOT / script
        assert path.is_file(), f"{document}: {script} does not exist"
        if path.name in LAUNCHERS and not words[place + 1 :]:
            continue  # a demonstration, which the launcher gives flags of its own
        path = path.with_name(LAUNCHERS.get(path.name, path.name))
        yield path.resolve().relative_to(ROOT).as_posix(), words[place + 1 :]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documented_commands_have_flags_that_exist(document: str) -> None:
    for script, words in scripts_of(document):
        if script.endswith(".py") and "peer_" not in script and "..." not in words:
            parse(script, words)


def test_commands_are_found() -> None:
    found = [script for document in DOCUMENTS for script, _ in scripts_of(document)]
    assert len(found) > 30
    assert {"SASRec/finetune.py", "Recformer/pretrain.py", "scripts/compare.py", "scripts/prepare.py"} <= set(found)


def test_the_front_page_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 150


def test_the_debuggers_run_commands_that_exist() -> None:
    launchers = json.loads(text_of(".vscode/launch.json"))["configurations"]
    assert len({launcher["name"] for launcher in launchers}) == len(launchers) >= 4
    for launcher in launchers:
        script = launcher["program"].removeprefix("${workspaceFolder}/")
        parse(script, launcher["args"])


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_s_targets_are_the_commands_of_the_front_page() -> None:
    for target in ("setup", "test", "quickstart"):
        said = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True)
        assert said.stdout == f"bash scripts/{target}.sh\n"
