"""Files that are whole or absent."""

import errno
import fcntl
import io
import json
import logging
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
import pytest
import torch

from seqrec.basics.errors import UserError
from seqrec.basics.files import exclusive, hold, is_held, write_atomically, write_json
from tests import forked


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


def test_json_holds_numbers_as_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    value = {"a": np.int64(3), "b": np.float32(0.5), "c": np.True_, "d": (1, None), "e": [{"f": np.float64("nan")}]}
    with caplog.at_level(logging.WARNING):
        write_json(tmp_path / "a.json", value | {"g": float("inf"), "h": True})
    expected = {"a": 3, "b": 0.5, "c": True, "d": [1, None], "e": [{"f": None}], "g": None, "h": True}
    assert json.loads((tmp_path / "a.json").read_text()) == expected
    assert "e[0].f is nan, which JSON has no number for" in caplog.text
    with pytest.raises(TypeError, match=r"x\[1\] is a set, which JSON cannot hold"):
        write_json(tmp_path / "b.json", {"x": [1, {2}]})
    assert not (tmp_path / "b.json").exists()


def save_array(file: IO[bytes]) -> None:
    np.save(file, np.zeros(100_000))


def save_arrays(file: IO[bytes]) -> None:
    np.savez(file, a=np.random.default_rng(0).random(100_000))


def save_tensors(file: IO[bytes]) -> None:
    torch.save({"a": torch.zeros(100_000), "b": torch.zeros(100_000)}, file)


def save_table(file: IO[bytes]) -> None:
    pl.DataFrame({"a": np.random.default_rng(0).random(100_000)}).write_parquet(file)


WRITERS = [save_array, save_arrays, save_tensors, save_table]


@pytest.mark.parametrize("write", WRITERS)
def test_libraries_write_the_same_bytes_as_elsewhere(tmp_path: Path, write: Callable[[IO[bytes]], None]) -> None:
    with write_atomically(tmp_path / "file") as file:
        write(file)
    buffer = io.BytesIO()
    write(buffer)
    assert (tmp_path / "file").read_bytes() == buffer.getvalue()


def write_with_little_room(path: Path, write: Callable[[IO[bytes]], None], said: Path) -> None:
    """Write a file where none can be larger than 50,000 bytes, and note the error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    try:
        with write_atomically(path) as file:
            write(file)
    except UserError as error:
        said.write_text(str(error))


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk_is_said(tmp_path: Path, write: Callable[[IO[bytes]], None]) -> None:
    path, said = tmp_path / "out" / "file", tmp_path / "said"
    process = forked.start(write_with_little_room, path, write, said, output=tmp_path / "output")
    process.join(60)
    assert process.exitcode == 0, (tmp_path / "output").read_text()
    assert said.read_text().startswith(f"{path} could not be written ({os.strerror(errno.EFBIG)}): ")
    assert "bytes are free in" in said.read_text()
    assert list(path.parent.iterdir()) == []


def write_and_wait(path: Path) -> None:
    """Begin a file and wait to be killed."""
    with write_atomically(path) as file:
        file.write(b"half")
        time.sleep(600)


def test_what_a_dead_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "last[1].ckpt"
    process = forked.start(write_and_wait, path)
    part = tmp_path / f".last[1].ckpt.{process.pid}.tmp"
    while not (part.exists() and is_held(part)):
        time.sleep(0.01)
    others = [tmp_path / name for name in (".last[1].ckpt.mine.tmp", f".other.ckpt.{process.pid}.tmp", "notes.tmp")]
    for other in others:
        other.touch()
    with write_atomically(path):
        pass
    assert part.exists()  # of a process that lives
    process.kill()
    process.join()
    with write_atomically(path):
        pass
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def add_slowly(folder: Path) -> None:
    """Add to a number that another process adds to as well."""
    for _ in range(50):
        with exclusive(folder / "lock"):
            number = folder / "number"
            before = int(number.read_text())
            time.sleep(0.0005)
            number.write_text(str(before + 1))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    processes = [forked.start(add_slowly, tmp_path) for _ in range(3)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "number").read_text() == "150"
    assert not (tmp_path / "lock").exists()


def test_a_lock_is_the_processs_and_not_its_childrens(tmp_path: Path) -> None:
    hold(tmp_path / "lock", "held")
    hold(tmp_path / "lock", "held")
    child = os.fork()
    if child == 0:
        with (tmp_path / "lock").open("ab") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os._exit(7)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
