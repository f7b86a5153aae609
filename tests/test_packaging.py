"""The package's metadata agree with what the project pins and runs with."""

import re
import tomllib
from typing import Any

from seqrec import __version__
from seqrec.basics.names import list_families
from seqrec.basics.paths import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9_.-]+", requirement)
    assert found is not None
    return found[0].lower()


def test_every_pinned_library_is_a_dependency_or_in_an_extra() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    pinned = {name_of(line): line for line in lines}
    project = PROJECT["project"]
    named = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    assert {name_of(requirement) for requirement in named} == set(pinned)
    assert pinned["torch"] in named


def test_every_family_is_a_package() -> None:
    included = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert set(included) == {f"{name}*" for name in ("seqrec", *list_families(ROOT))}


def test_the_citation_is_of_this_version() -> None:
    lines = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {__version__}" in lines
    assert f"license: {PROJECT['project']['license']}" in lines


def test_the_image_of_the_service_has_pinned_versions() -> None:
    pinned = set((ROOT / "requirements.txt").read_text().splitlines())
    assert set((ROOT / "docker/requirements.txt").read_text().splitlines()) < pinned
