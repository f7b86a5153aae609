"""What a command says of errors: the user's in one line, its own with their traceback."""

import errno
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from seqrec.basics.command import run_command
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.files import write_atomically
from tests import forked


@dataclass
class Inner:
    """Paths."""

    files: tuple[str, ...] = ()


@dataclass
class Config:
    """One flag."""

    number: int = 0


def end_with(error: Exception) -> None:
    def main(_: object) -> None:
        raise error

    run_command(main, Config, [])


@pytest.mark.parametrize("error", [UserError("--lr must be above 0"), MissingFileError("no file x")])
def test_a_users_error_ends_the_command_with_its_message(error: UserError) -> None:
    with pytest.raises(SystemExit, match=str(error)):
        end_with(error)


def test_a_bug_keeps_its_traceback_and_says_how_to_report_it() -> None:
    for error in (ValueError("not a user's"), FileNotFoundError(errno.ENOENT, "gone", "/tmp/not-given"), OSError("x")):
        with pytest.raises(type(error)) as caught:
            end_with(error)
        assert "please report" in caught.value.__notes__[-1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS])
def test_what_the_operating_system_refuses_is_one_line(number: int) -> None:
    with pytest.raises(SystemExit, match=f"{os.strerror(number)}: '/somewhere'"):
        end_with(OSError(number, os.strerror(number), "/somewhere"))


@pytest.mark.parametrize("missing", ["/data/mine", "/data/mine/part", "mine.csv"])
def test_a_path_that_was_given_and_is_not_there_is_one_line(missing: str) -> None:
    @dataclass
    class Paths:
        """Flags within flags."""

        inner: Inner = field(default_factory=Inner)

    def main(_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", missing)

    with pytest.raises(SystemExit, match=missing):
        run_command(main, Paths, ["--files", "/data/mine", "mine.csv"])
    with pytest.raises(FileNotFoundError):
        run_command(main, Paths, ["--files", "/data/min"])


def write_until_stopped(place: Path, ready: Path) -> None:
    """Begin to write a file and wait."""

    def main(_: object) -> None:
        with write_atomically(place) as file:
            file.write(b"half")
            ready.touch()
            time.sleep(600)

    run_command(main, Config, [])


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_command_in_order(tmp_path: Path, sent: signal.Signals) -> None:
    folder, ready, said = tmp_path / "out", tmp_path / "ready", tmp_path / "said"
    process = forked.start(write_until_stopped, folder / "file", ready, output=said)
    while not ready.exists():
        assert process.is_alive(), said.read_text()
        time.sleep(0.01)
    os.kill(process.pid or 0, sent)
    process.join(60)
    assert process.exitcode == 128 + sent
    assert said.read_text() == f"stopped by {sent.name}\n"
    assert list(folder.iterdir()) == []


def test_a_signal_that_comes_out_as_another_error_ends_a_command_too() -> None:
    def main(_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except SystemExit as stopped:
            raise RuntimeError("while a class was defined") from stopped

    with pytest.raises(SystemExit) as caught:
        run_command(main, Config, [])
    assert caught.value.code == 128 + signal.SIGTERM


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run_command(lambda _: os.kill(os.getpid(), signal.SIGHUP), Config, [])
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def print_much(pipe: Path, done: Path) -> None:
    """Print more than a pipe holds to one that nobody reads to the end, and go on."""

    def main(_: object) -> None:
        for _ in range(100_000):
            print("a line")
        done.touch()

    sys.stdout = sys.__stdout__
    os.dup2(os.open(pipe, os.O_WRONLY), 1)
    run_command(main, Config, [])


def test_a_reader_that_has_read_enough_is_no_error(tmp_path: Path) -> None:
    pipe, done, said = tmp_path / "pipe", tmp_path / "done", tmp_path / "said"
    os.mkfifo(pipe)
    process = forked.start(print_much, pipe, done, output=said)
    with pipe.open() as reader:
        assert reader.readline() == "a line\n"
    process.join(60)
    assert (process.exitcode, said.read_text()) == (0, "")
    assert done.exists()
