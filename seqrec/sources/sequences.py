"""Lines of `user item item ...`, oldest item first, separated by blanks or tabs; several lines of a user are joined.

That is the layout of S3-Rec, of MovieLens' SASRec cut and of MicroLens, and, with one item a line, of SASRec itself.
Text comes from a second file: a CSV with a header, whose first column is the item id, or MovieLens' movies.dat.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from seqrec.errors import UserError
from seqrec.preparation import Preparation, RawData
from seqrec.sources.movielens import read_movies
from seqrec.sources.reading import existing, scan_table, settle, unique_items


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences(Preparation):
    """Lines of a user and the user's items in order of time."""

    kind: ClassVar[str] = "sequences"

    input: Path
    """The file of lines."""
    items: Path | None = None
    """CSV of id and text with a header, or movies.dat; without it the dataset has no text."""

    def read(self, scratch: Path) -> RawData:
        """Return the sequences and the items' text."""
        path = existing(self.input, "--input")
        words = pl.col("text").str.extract_all(r"\S+")
        lines = settle(pl.scan_lines(path, name="text").with_row_index("line", offset=1), path, scratch)
        rows = lines.select("line", words=words).filter(pl.col("words").list.len() > 0)
        lone = rows.filter(pl.col("words").list.len() == 1).head(1).collect()
        if not lone.is_empty():
            raise UserError(
                f"{path}, line {lone['line'][0]}: expected `user item item ...`, got {lone['words'][0].to_list()}"
            )
        frame = rows.select(user=pl.col("words").list.first(), item=pl.col("words").list.slice(1)).explode("item")
        items = None if self.items is None else read_items(existing(self.items, "--items"), scratch)
        return RawData(frame, items, origin=str(path))


def read_items(path: Path, scratch: Path) -> pl.DataFrame:
    """Return raw_id and the attributes of a CSV or TSV with a header, or of movies.dat."""
    if path.suffix == ".dat":
        return read_movies(path, scratch)
    separator = "," if ".csv" in path.suffixes else "\t"
    frame = scan_table(path, separator, scratch, quote=separator == ",").collect()
    if len(frame.columns) < 2:
        raise UserError(f"{path}: expected an id column and at least one of text, it has {', '.join(frame.columns)}")
    return unique_items(frame.rename({frame.columns[0]: "raw_id"}), path, 2)
