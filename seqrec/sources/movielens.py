"""MovieLens: `ratings.dat|csv` with `movies.dat|csv`.

The year stays in the title; genres become the attribute `category`, separated by blanks. `.dat` files are latin-1
with `::` between fields. `u.item` of MovieLens-100K is read for other sources that need it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from seqrec.errors import MissingFileError, UserError
from seqrec.preparation import Preparation, RawData
from seqrec.sources.reading import interactions, require_columns, scan_table, settle, unique_items

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
        if path.suffix == ".dat":
            names = ("userId", "movieId", "rating", "timestamp")
            frame = _scan_dat(path, names, scratch)
        else:
            frame = scan_table(path, ",", scratch, quote=True)
            require_columns(frame, ("userId", "movieId", "rating", "timestamp"), path)
        frame = frame.rename({"userId": "user", "movieId": "item"})
        first = 1 if path.suffix == ".dat" else 2
        events = interactions(frame, path, first, pl.col("timestamp"), pl.col("rating"))
        return RawData(events, read_movies(_either(self.input, "movies"), scratch), origin=str(path))


def read_movies(path: Path, scratch: Path) -> pl.DataFrame:
    """Return raw_id, title and category of movies.dat or movies.csv."""
    if path.suffix == ".dat":
        frame, first = _movies_dat(path), 1
    else:
        table = scan_table(path, ",", scratch, quote=True)
        require_columns(table, ("movieId", "title", "genres"), path)
        frame, first = table.select(raw_id="movieId", title="title", category="genres").collect(), 2
    frame = frame.with_columns(
        pl.col("category").replace("(no genres listed)", "").str.replace_all("|", " ", literal=True)
    )
    return unique_items(frame, path, first)


def read_u_item(path: Path) -> pl.DataFrame:
    """Return raw_id, title and category of MovieLens-100K's u.item (latin-1, 24 fields split by `|`)."""
    fields = _latin_lines(path).str.split("|")
    if (fields.list.len() != 24).any():
        line = int((fields.list.len() != 24).arg_max() or 0)
        raise UserError(f"{path}, line {line + 1}: expected 24 fields between |, got {fields.list.len()[line]}")
    frame = pl.DataFrame({"fields": fields}).select(
        raw_id=pl.col("fields").list.get(0),
        title=pl.col("fields").list.get(1),
        category=pl.concat_str(
            [
                pl.when(pl.col("fields").list.get(5 + place) == "1").then(pl.lit(genre))
                for place, genre in enumerate(U_ITEM_GENRES)
            ],
            separator=" ",
            ignore_nulls=True,
        ),
    )
    return unique_items(frame, path, 1)


def _movies_dat(path: Path) -> pl.DataFrame:
    fields = _latin_lines(path).str.split("::")
    if (fields.list.len() < 3).any():
        line = int((fields.list.len() < 3).arg_max() or 0)
        raise UserError(f"{path}, line {line + 1}: expected id::title::genres, got {'::'.join(fields[line])!r}")
    return pl.DataFrame({"fields": fields}).select(
        raw_id=pl.col("fields").list.first(),
        title=pl.col("fields").list.slice(1, pl.col("fields").list.len() - 2).list.join("::"),
        category=pl.col("fields").list.last(),
    )


def _latin_lines(path: Path) -> pl.Series:
    return pl.Series("line", path.read_text("latin-1").splitlines(), dtype=pl.String)


def _scan_dat(path: Path, names: tuple[str, ...], scratch: Path) -> pl.LazyFrame:
    lines = pl.scan_lines(path, name="text")
    parts = pl.col("text").str.splitn("::", len(names)).struct
    fields = [parts.field(f"field_{place}").alias(name) for place, name in enumerate(names)]
    return settle(lines.select(fields), path, scratch)


def _either(folder: Path, stem: str) -> Path:
    for suffix in (".dat", ".csv"):
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    raise MissingFileError(f"--input {folder}: neither {stem}.dat nor {stem}.csv is in it")
