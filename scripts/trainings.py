"""The trainings of a sweep, each in a separate process that ends with the sweep."""

import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

GRACE_SECONDS = 30
"""Seconds for a training to end after SIGTERM."""


class SweepEndedError(Exception):
    """The sweep ends before a training has."""


class Trainings:
    """The processes that train, begun from any number of threads."""

    def __init__(self) -> None:
        self.running = set[subprocess.Popen[bytes]]()
        self.ended, self.lock = False, threading.Lock()

    def run(self, command: Sequence[str], output: IO[bytes]) -> int:
        """Run one to its end and return its status.

        Raises:
            SweepEndedError: If the sweep has ended.
        """
        with self.lock:
            if self.ended:
                raise SweepEndedError
            # In a session of its own, so that Ctrl+C reaches it once, by `ending`.
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
            self.running.add(process)
        status = process.wait()
        with self.lock:
            self.running.discard(process)
            if self.ended:
                raise SweepEndedError
        return status

    @contextmanager
    def ending(self) -> Iterator[None]:
        """End all where an error or a signal ends the block, and begin no more."""
        try:
            yield
        except BaseException:
            with self.lock:
                self.ended = True
                running = list(self.running)
            for process in running:
                process.terminate()
            for process in running:
                try:
                    process.wait(GRACE_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
            raise
