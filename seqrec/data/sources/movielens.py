"""MovieLens: `ratings.dat|csv` with `movies.dat|csv`.

The year stays in the title; genres become the attribute `category`, separated by blanks. `.dat` files have `::`
between fields. `u.item` of MovieLens-100K is read for other sources that need it. These files, which are published in
latin-1, are read as that unless they are UTF-8.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources.checks import interactions, items_by_id
from seqrec.data.sources.tables import LINE, require_columns, row_fault, scan_lines, scan_table
from seqrec.data.sources.times import TimeColumn

U_ITEM_GENRES = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class MovieLens(Preparation):
    """MovieLens ratings and movies."""

    kind: ClassVar[str] = "movielens"

    input: Path
    """Folder with ratings.dat or ratings.csv and movies.dat or movies.csv."""

    def read(self, scratch: Path) -> RawData:
        """Return the ratings and the movies."""
        path = _either(self.input, "ratings")
        names = ("userId", "movieId", "rating", "timestamp")
        if path.suffix == ".dat":
            parts = pl.col("text").str.splitn("::", len(names)).struct
            fields = [parts.field(f"field_{at}").alias(name) for at, name in enumerate(names)]
            frame = scan_lines(path, "text", scratch, "latin-1").select(LINE, *fields)
        else:
            frame = scan_table(path, ",", scratch, quote=True)
            require_columns(frame, names, path)
        events = interactions(frame, path, "userId", "movieId", TimeColumn("timestamp"), "rating")
        return RawData(events, read_movies(_either(self.input, "movies"), scratch), origin=str(path))


def read_movies(path: Path, scratch: Path) -> pl.DataFrame:
    """Return raw_id, title and category of movies.dat or movies.csv."""
    if path.suffix == ".dat":
        lines = _fields(path, "::", scratch)
        short = pl.col("fields").list.len() < 3
        _refuse(lines, short, path, "expected id::title::genres")
        frame = lines.select(
            LINE,
            movieId=pl.col("fields").list.first(),
            title=pl.col("fields").list.slice(1, pl.col("fields").list.len() - 2).list.join("::"),
            genres=pl.col("fields").list.last(),
        )
    else:
        frame = scan_table(path, ",", scratch, quote=True)
        require_columns(frame, ("movieId", "title", "genres"), path)
    category = pl.col("genres").replace("(no genres listed)", "").str.replace_all("|", " ", literal=True)
    return items_by_id(frame.with_columns(category=category), "movieId", ["title", "category"], path)


def read_u_item(path: Path, scratch: Path) -> pl.DataFrame:
    """Return raw_id, title and category of MovieLens-100K's u.item (24 fields split by `|`)."""
    lines = _fields(path, "|", scratch)
    _refuse(lines, pl.col("fields").list.len() != 24, path, "expected 24 fields between |")
    genres = [
        pl.when(pl.col("fields").list.get(5 + at) == "1").then(pl.lit(genre)) for at, genre in enumerate(U_ITEM_GENRES)
    ]
    frame = lines.select(
        LINE,
        movieId=pl.col("fields").list.get(0),
        title=pl.col("fields").list.get(1),
        category=pl.concat_str(genres, separator=" ", ignore_nulls=True),
    )
    return items_by_id(frame, "movieId", ["title", "category"], path)


def _fields(path: Path, separator: str, scratch: Path) -> pl.LazyFrame:
    return scan_lines(path, "text", scratch, "latin-1").select(LINE, fields=pl.col("text").str.split(separator))


def _refuse(lines: pl.LazyFrame, faulty: pl.Expr, path: Path, expected: str) -> None:
    if lines.select(faulty.any()).collect().item():
        where, row = row_fault(lines, path, faulty, ["fields"])
        raise UserError(f"{where}: {expected}, got {str(row['fields'])[:200]}")


def _either(folder: Path, stem: str) -> Path:
    for suffix in (".dat", ".csv"):
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    raise MissingFileError(f"--input {folder}: neither {stem}.dat nor {stem}.csv is in it")
