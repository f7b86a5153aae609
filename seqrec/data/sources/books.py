"""Amazon Books of 2014: `ratings_Books.csv` and `meta_Books.json`, whose lines are Python literals.

Source: https://jmcauley.ucsd.edu/data/amazon/. `--min_sc 5 --min_uc 5` is the published choice of rows. Any other
category of that year has the same layout.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from seqrec.basics.errors import UserError
from seqrec.basics.progress import progress
from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources.checks import interactions, items_by_id
from seqrec.data.sources.reading import line_chunks, only_match
from seqrec.data.sources.tables import LINE, scan_table
from seqrec.data.sources.times import TimeColumn

COLUMNS = ("user_id", "item_id", "rating", "timestamp")
TEXT = ("title", "description")


@dataclass(frozen=True, slots=True, kw_only=True)
class Books(Preparation):
    """Amazon's ratings and metadata of 2014."""

    kind: ClassVar[str] = "books"

    input: Path
    """Folder of one ratings_*.csv and one meta_*.json, either perhaps .gz."""

    def read(self, scratch: Path) -> RawData:
        """Return the ratings, and the items' texts."""
        ratings = only_match(self.input, "ratings_*.csv*", "--input")
        meta = only_match(self.input, "meta_*.json*", "--input")
        frame = scan_table(ratings, ",", scratch, quote=True, columns=COLUMNS)
        events = interactions(frame, ratings, "user_id", "item_id", TimeColumn("timestamp"), "rating")
        schema = {LINE: pl.UInt32, "asin": pl.String} | dict.fromkeys(TEXT, pl.String)
        parts = [pl.DataFrame(rows, schema) for rows in progress(_literals(meta), desc=meta.name, unit="part")]
        texts = items_by_id(pl.concat(parts or [pl.DataFrame(schema=schema)]).lazy(), "asin", TEXT, meta, "last")
        return RawData(events, texts, origin=str(ratings))


def _literals(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield the items of a file of Python literals, a part at a time; nothing of it is run.

    Raises:
        UserError: If a line is no dictionary with an asin; names the line.
    """
    for first, chunk in line_chunks(path):
        rows = []
        for number, line in enumerate(chunk.split(b"\n"), first):
            if not line.strip():
                continue
            try:
                read = ast.literal_eval(line.decode("utf-8", errors="replace").strip())
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                read = None
            if not isinstance(read, dict) or not isinstance(read.get("asin"), str):
                raise UserError(f"{path}, line {number}: expected a dictionary with an asin, got {line[:80]!r}")
            texts = {name: str(read[name]) for name in TEXT if read.get(name) is not None}
            rows.append({LINE: number, "asin": read["asin"]} | texts)
        yield rows
