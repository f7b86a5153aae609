"""What a language model said, in a file of JSON lines: a run that was stopped goes on with it."""

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

from seqrec.basics.errors import UserError


class Kept:
    """Finds what was said to a question before, and keeps what is said now; for many threads."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a last line that was cut off is taken away.

        Raises:
            UserError: If another line holds nothing that was kept.
        """
        self.path = path
        self._lock, self._found = threading.Lock(), dict[str, dict[str, Any]]()
        if not path.is_file():
            return
        whole, newline, rest = path.read_bytes().rpartition(b"\n")
        if rest:
            with path.open("r+b") as file:
                file.truncate(len(whole) + len(newline))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = json.loads(line)
                self._found[entry["of"]] = dict(entry["said"])
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path}, line {number}, is no answer: delete the line, or the file") from error

    def find(self, question: Any) -> dict[str, Any] | None:
        """Return what was said to a question, which is anything that JSON can hold; None if it is new."""
        return self._found.get(_name(question))

    def keep(self, question: Any, **said: Any) -> None:
        """Write what was said to it."""
        with self._lock:
            self._found[_name(question)] = said
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"of": _name(question), "said": said}) + "\n")


def _name(question: Any) -> str:
    return hashlib.sha256(json.dumps(question).encode()).hexdigest()
