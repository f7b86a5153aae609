"""Files that are whole or absent: written under a temporary name, then renamed; and locks that end with a process."""

import errno
import fcntl
import glob
import hashlib
import io
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from seqrec.basics.errors import UserError

log = logging.getLogger(__name__)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full file system."""
_held: dict[Path, IO[bytes]] = {}
"""Locks of `hold`; they stay open until the process ends."""


class _Output(io.RawIOBase):
    """A file that records how much was written and why writing failed; libraries may hide both."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.written = file, 0
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            count = self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.written += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def flush(self) -> None:
        try:
            if not self.file.closed:
                self.file.flush()
        except OSError as error:
            self.error = error
            raise


@contextmanager
def write_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears under its name only when the block ends without an error.

    Leftovers of killed processes are removed.

    Raises:
        UserError: If there is no room for the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    output = None
    try:
        with temporary.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            output = _Output(file)
            yield output  # type: ignore[misc]
        temporary.replace(path)
    except Exception as error:
        # PyTorch and NumPy replace the file system's error by their own.
        cause = output.error if output is not None and output.error is not None else error
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            raise UserError(_no_room(path, 0 if output is None else output.written, cause)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _no_room(path: Path, written: int, cause: OSError) -> str:
    free = shutil.disk_usage(path.parent).free
    return (
        f"{path} could not be written ({os.strerror(cause.errno or 0)}): {written:,} bytes of it were, and {free:,} "
        f"bytes are free in {path.parent}. Make room, or write elsewhere"
    )


def _remove_leftovers(path: Path) -> None:
    """Delete the temporary files that dead processes left."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        found = re.fullmatch(r"\.(\d+)\.tmp", left.name.removeprefix(f".{path.name}"))
        # The lock covers processes on other machines, the process number those about to lock.
        if found and not _is_alive(int(found[1])) and not is_held(left):
            left.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def exclusive(path: Path, waiting: str | None = None) -> Iterator[None]:
    """Let one process or thread at a time into the block, by locking a file that exists meanwhile.

    Args:
        path: The file.
        waiting: Message to log when another is in the block.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                log.info("%s", waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        if _is_file_of(path, file):
            break
        file.close()  # the previous owner deleted it
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _is_file_of(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def hold(path: Path, held: str) -> None:
    """Lock a file until this process ends; the same process may lock it again.

    Forked processes, such as data loaders, do not share the lock.

    Raises:
        UserError: If another process has locked it, with the message `held`.
    """
    path = path.resolve()
    if path in _held and _is_file_of(path, _held[path]):
        return
    file = path.open("ab")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.close()
        raise UserError(held) from error
    _held[path] = file


def is_held(path: Path) -> bool:
    """Return whether a process is in an `exclusive` block of that file; the lock is released when its process exits."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def hash_file(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, keys in the order given; see `plain`."""
    with write_atomically(path) as file:
        file.write((json.dumps(plain(value), indent=2, allow_nan=False) + "\n").encode())


def plain(value: Any, where: str = "") -> Any:
    """Return a value as JSON can hold it.

    NumPy's scalars become numbers, tuples lists, paths strings; a float that is not finite becomes null, with a warning
    that says where it was.

    Raises:
        TypeError: If it holds anything else.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        log.warning("%s is %s, which JSON has no number for: written as null", where or "a value", value)
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item, f"{where}.{key}" if where else str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{place}]") for place, item in enumerate(value)]
    raise TypeError(f"{where or 'a value'} is a {type(value).__name__}, which JSON cannot hold")


def _replaced(target: Path) -> Path:
    """Return where a folder lies while another takes its place."""
    return target.with_name(f".{target.name}.replaced")


def replace_folder(folder: Path, target: Path) -> None:
    """Put a finished folder in the place of another, which is deleted; what a kill leaves, `put_back` mends.

    Args:
        folder: On the same file system.
        target: May not exist yet.
    """
    old = _replaced(target)
    if target.exists():
        target.rename(old)
    try:
        folder.rename(target)
    except BaseException:
        if old.is_dir():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def put_back(target: Path) -> None:
    """Undo or finish a replacement that was interrupted by a kill."""
    old = _replaced(target)
    if old.is_dir() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)
