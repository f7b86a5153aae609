"""Lines of `user item item ...`, oldest item first, separated by blanks or tabs; several lines of a user are joined.

That is the layout of S3-Rec, of MovieLens' SASRec cut and of MicroLens, and, with one item a line, of SASRec itself.
Text comes from a second file, in any form that `table` takes too; its first column is the item id.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from seqrec.basics.errors import UserError
from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources.reading import existing, place
from seqrec.data.sources.tables import LINE, scan_lines
from seqrec.data.sources.tabular import read_items


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences(Preparation):
    """Lines of a user and the user's items in order of time."""

    kind: ClassVar[str] = "sequences"

    input: Path
    """The file of lines."""
    items: Path | None = None
    """Items: .csv or .tsv with a header, .parquet, .json, .txt of lines of an id and its title, movies.dat or u.item;
    without it the dataset has no text."""

    def read(self, scratch: Path) -> RawData:
        """Return the sequences and the items' text."""
        path = existing(self.input, "--input")
        words = pl.col("text").str.extract_all(r"[^ \t\r\n\x0b\x0c]+")  # no other character parts ids
        rows = scan_lines(path, "text", scratch).select(LINE, words=words).filter(pl.col("words").list.len() > 0)
        lone = rows.filter(pl.col("words").list.len() == 1).head(1).collect()
        if not lone.is_empty():
            where = place(path, lone[LINE][0])
            raise UserError(f"{where}: expected `user item item ...`, got {str(lone['words'][0].to_list())[:200]}")
        frame = rows.select(user=pl.col("words").list.first(), item=pl.col("words").list.slice(1)).explode("item")
        items = (
            None
            if self.items is None
            else read_items(existing(self.items, "--items"), scratch, wanted=self.attribute_names)
        )
        return RawData(frame, items, origin=str(path))
