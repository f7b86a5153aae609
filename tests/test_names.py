"""Names that a folder can have, and values that would leave it."""

from pathlib import Path

import pytest

from seqrec.basics.errors import UserError
from seqrec.basics.names import check_family, check_name


@pytest.mark.parametrize("name", ["demo", "amazon-scientific", "a*b", "a\\b", "sp ace ü'q\"x", "[1]", "x" * 200])
def test_plain_names_stay_as_they_are(name: str) -> None:
    assert check_name("--name", name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/tmp/x", "a/b", "a/", ".hidden", "a\nb", "a\0b", "\ud800"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="--name must be a plain name"):
        check_name("--name", name)


def test_a_name_is_as_long_as_a_file_system_takes() -> None:
    with pytest.raises(UserError, match="at most 200 bytes long, got 101 characters"):
        check_name("--name", "ü" * 101)


def test_a_family_is_a_folder_of_the_project(tmp_path: Path) -> None:
    for folder in ("Toy", "runs/Toy/tiny/shared", "not-a-module"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "finetune.py").touch()
    assert check_family("family", "Toy", tmp_path) == "Toy"
    for name in ("runs.Toy.tiny.shared", "runs/Toy/tiny/shared", "not-a-module", "os", "", ".", None, 3, ["Toy"]):
        with pytest.raises(UserError, match="family must be one of Toy, got"):
            check_family("family", name, tmp_path)
