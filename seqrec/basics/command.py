"""How every command starts: flags from a dataclass, log lines on the terminal, errors without a traceback."""

import errno
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import tyro

from seqrec.basics.checks import check_numbers, list_flags
from seqrec.basics.errors import UserError
from seqrec.basics.files import NO_ROOM
from seqrec.basics.imports import leave_out_text_metrics
from seqrec.basics.progress import show_progress
from seqrec.basics.published import PublishedFlags

log = logging.getLogger(__name__)
SURROUNDINGS = (*NO_ROOM, errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of the operating system that are no fault of the program."""
OF_A_PATH = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG)
"""Errors that count as the user's if the path came from a flag."""
REPORT = (
    "This is a fault of the program, not of what it was given: please report the lines above, the command, and what "
    "`pip freeze` prints, as an issue of the project."
)


class _Stopped(SystemExit):
    """A signal ended the command."""


class _UntilClosed(io.FileIO):
    """Standard output whose reader may close it, as `| head -1` does: the rest is dropped."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return super().write(data)


def run_command(
    main: Callable[[Any], object],
    config: Any,
    words: Sequence[str] | None = None,
    published: PublishedFlags | None = None,
) -> None:
    """Read the flags of a (nested) dataclass, or of a union of them as subcommands, flat, and run a command.

    They are read from `words`, by default those of the command line; flags of a `published` script are translated.

    Refused input ends the command with the error's message and status 1; SEQREC_TRACEBACK=1 shows the traceback.
    SIGTERM, SIGINT and SIGHUP end it cleanly, with status 128 plus the signal's number. Any other error keeps its
    traceback and says how to report it.
    """
    _set_up_output()
    settings: Any = None
    received: list[int] = []
    try:
        with _ended_by_signals(received):
            words = sys.argv[1:] if words is None else words
            if published is not None:
                words = published.translate(words)
            settings = tyro.cli(config, args=words, config=(tyro.conf.OmitArgPrefixes,), use_underscores=True)
            check_numbers(settings)
            show_progress(dict(list_flags(settings)).get("progress_bar", True))
            leave_out_text_metrics()
            main(settings)
    except (_Stopped, Exception) as error:
        if received:  # inside a class definition, for example, the exception arrives as another one
            log.info("stopped by %s", signal.Signals(received[0]).name)
            sys.exit(128 + received[0])
        if not _is_users(error, settings):
            error.add_note(REPORT)
            raise
        if os.environ.get("SEQREC_TRACEBACK"):
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


def _set_up_output() -> None:
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        file = io.BufferedWriter(_UntilClosed(sys.stdout.fileno(), "wb", closefd=False))
        sys.stdout = io.TextIOWrapper(file, sys.stdout.encoding, line_buffering=sys.stdout.line_buffering)
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="replace")  # titles have characters that an ASCII terminal cannot show
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    quiet_libraries()


def quiet_libraries() -> None:
    """Silence messages of libraries that do not apply here: Lightning's advice, requests, fonts."""
    lightning = ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda")
    for noisy in ("httpx", "fsspec", "urllib3", "matplotlib", "faiss", *lightning):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Advice of Lightning that does not apply: its logging interval, its own use of torch, that --resume resumes, frozen
    # parts.
    moot_texts = ("log_every_n_steps", "LeafSpec", "exists and is not empty", "does not have many workers", "eval mode")
    for moot in moot_texts:
        warnings.filterwarnings("ignore", f".*{moot}.*")


@contextmanager
def _ended_by_signals(received: list[int]) -> Iterator[None]:
    """Turn signals into exceptions within the block, so that it leaves no half-written file and no child process.

    Args:
        received: Numbers of the signals are appended.
    """

    def end(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise _Stopped(128 + number)

    given = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    # A signal that is ignored stays ignored, as under nohup.
    before = {number: signal.getsignal(number) for number in given if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_users(error: BaseException, settings: Any) -> bool:
    """Return whether the user who gave these settings can repair an error."""
    if isinstance(error, UserError) or type(error).__name__ == "MisconfigurationException":  # Lightning's
        return True
    if not isinstance(error, OSError):
        return False
    if error.errno in OF_A_PATH:
        named = [path for path in (error.filename, error.filename2) if isinstance(path, str | os.PathLike)]
        places = {Path(path).absolute() for path in named}
        places |= {parent for place in places for parent in place.parents}
        return any(Path(given).absolute() in places for given in _paths(settings))
    return error.errno in SURROUNDINGS


def _paths(settings: Any) -> Iterator[str | Path]:
    """Yield the values of flags that may be paths."""
    for _, value in list_flags(settings) if is_dataclass(settings) else ():
        for given in value if isinstance(value, tuple | list) else (value,):
            if isinstance(given, Path) or (isinstance(given, str) and given and "\0" not in given):
                yield given
