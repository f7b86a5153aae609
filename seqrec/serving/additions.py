"""Items that were added while serving: on disk before it is said that they were.

A journal is a file of lines of JSON, `{"id": ..., "text": {attribute: text}}`. It is kept beside an export and outlives
it: the next export places them anew, by their texts, unless it has them itself.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from seqrec.basics.errors import UserError
from seqrec.basics.files import hold
from seqrec.serving.answers import Answering

log = logging.getLogger(__name__)


def journal_of(folder: Path) -> Path:
    """Return where the items that were added to an export are kept."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}.added.jsonl")


class Journal:
    """Appends lines, each on disk when the call returns."""

    def __init__(self, path: Path) -> None:
        """Open a journal for this process alone; a line that a kill cut short was never acknowledged, and goes.

        Raises:
            UserError: If another process has it, or a line is none of a journal's.
        """
        self.path = path
        hold(path, f"another service has {path}: one at a time may add items")
        whole = path.read_bytes()
        self.items = list(self._read(whole[: whole.rfind(b"\n") + 1]))
        self._file = path.open("r+b")
        self._file.truncate(whole.rfind(b"\n") + 1)
        self._file.seek(0, os.SEEK_END)

    def _read(self, content: bytes) -> Iterator[tuple[str, dict[str, str]]]:
        for number, line in enumerate(content.splitlines(), 1):
            try:
                read = json.loads(line)
                raw_id, texts = read["id"], read["text"]
                fits = isinstance(raw_id, str) and all(isinstance(x, str) for pair in texts.items() for x in pair)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                fits = False
            if not fits:
                raise UserError(
                    f"{self.path}, line {number}, is no item that was added: repair it or move the file away"
                )
            yield raw_id, texts

    def append(self, raw_id: str, texts: Mapping[str, str]) -> None:
        """Write an item, through to the disk."""
        self._file.write(json.dumps({"id": raw_id, "text": dict(texts)}).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.items.append((raw_id, dict(texts)))


def add_all(model: Answering, journal: Journal) -> None:
    """Add a journal's items that a model does not have."""
    left_out = 0
    for raw_id, texts in journal.items:
        if len(model.catalogue.find([raw_id])[0]):
            continue
        try:
            model.add(raw_id, texts, model.place(texts))
        except UserError:
            left_out += 1
    if left_out:
        log.warning("%d items of %s have no word that %s knows and are left out", left_out, journal.path, model.name)
