"""Files that are whole or absent."""

import json
from pathlib import Path

import pytest

from seqrec.files import write_atomically, write_json


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with write_atomically(path) as file:
        file.write(b"all of it")
        assert not path.exists()
    assert path.read_bytes() == b"all of it"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="halfway"), write_atomically(path) as file:
        file.write(b"ne")
        raise RuntimeError("halfway")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]


def test_json_keeps_the_order_of_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"z": 1, "a": Path("x/y")})
    text = (tmp_path / "a.json").read_text()
    assert text == '{\n  "z": 1,\n  "a": "x/y"\n}\n'
    assert list(json.loads(text)) == ["z", "a"]
