"""Amazon reviews of 2018 and 2023 as published: JSON lines, plain or gzip, of reviews and of item metadata.

An array of such objects is read too.
2018: `reviewerID`, `asin`, `unixReviewTime`, `overall`; metadata `asin`, `title`, `brand`, `category`.
2023: `user_id`, `parent_asin`, `timestamp` in ms, `rating`; metadata `parent_asin`, `title`, `store`, `categories`.
Which of the two a file is, its first line says. Attributes are called as in 2018 for both: title, brand, category, and
on demand (`--attributes`) description and feature. Lists become one text joined by blanks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from seqrec.basics.errors import UserError
from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources.checks import interactions, items_by_id
from seqrec.data.sources.json_text import first_object, scan_objects
from seqrec.data.sources.reading import existing, only_match, place
from seqrec.data.sources.tables import LINE, row_fault
from seqrec.data.sources.times import TimeColumn

REVIEW_FIELDS = {
    2018: {"user": "reviewerID", "item": "asin", "timestamp": "unixReviewTime", "rating": "overall"},
    2023: {"user": "user_id", "item": "parent_asin", "timestamp": "timestamp", "rating": "rating"},
}
META_FIELDS = {
    2018: {"raw_id": "asin", "title": "title", "brand": "brand", "category": "category"},
    2023: {"raw_id": "parent_asin", "title": "title", "brand": "store", "category": "categories"},
}
ON_DEMAND = {
    2018: {"description": "description", "feature": "feature"},
    2023: {"description": "description", "feature": "features"},
}
LISTS = ("category", "description", "feature")


@dataclass(frozen=True, slots=True, kw_only=True)
class Amazon(Preparation):
    """Amazon reviews of 2018 or 2023 as published."""

    kind: ClassVar[str] = "amazon"

    input: Path | None = None
    """Folder with one meta_*.json* file and one other *.json* file, the reviews; or give the two by their flags."""
    reviews: Path | None = None
    """Reviews, for example Video_Games_5.json.gz or Video_Games.jsonl.gz."""
    meta: Path | None = None
    """Item metadata, for example meta_Video_Games.json.gz."""
    duplicate_items: str = "last"
    """Which of several metadata lines of an item counts: first, last or error. The 2018 files repeat some."""

    def __post_init__(self) -> None:
        super(Amazon, self).__post_init__()
        if self.input is None and (self.reviews is None or self.meta is None):
            raise UserError("give --input FOLDER, or both --reviews FILE and --meta FILE")
        if self.duplicate_items not in ("first", "last", "error"):
            raise UserError(f"--duplicate_items must be first, last or error, got {self.duplicate_items!r}")

    def read(self, scratch: Path) -> RawData:
        """Return the reviews and the items' text."""
        folder = self.input or Path()
        meta = self.meta or only_match(folder, "meta_*.json*", "--meta")
        reviews = self.reviews or only_match(folder, "*.json*", "--reviews", but="meta_")
        return RawData(
            self._read_reviews(existing(reviews, "--reviews"), scratch),
            self._read_meta(existing(meta, "--meta"), scratch),
            origin=str(reviews),
        )

    def _read_reviews(self, path: Path, scratch: Path) -> pl.LazyFrame:
        year, names = _detect(path, REVIEW_FIELDS)
        types = {"user": pl.String, "item": pl.String, "timestamp": pl.Float64, "rating": pl.Float64}
        frame = scan_objects(path, {names[name]: types[name] for name in types}, scratch)
        _check_ids(frame, [names["user"], names["item"]], path)
        times = TimeColumn(names["timestamp"], "s" if year == 2018 else "ms")
        return interactions(frame, path, names["user"], names["item"], times, names["rating"])

    def _read_meta(self, path: Path, scratch: Path) -> pl.DataFrame:
        year, names = _detect(path, META_FIELDS)
        extra = {name: field for name, field in ON_DEMAND[year].items() if name in self.attribute_names}
        names = {**names, **extra}
        schema = {field: pl.List(pl.String) if name in LISTS else pl.String() for name, field in names.items()}
        frame = scan_objects(path, schema, scratch)
        _check_ids(frame, [names["raw_id"]], path)
        attributes = {name: field for name, field in names.items() if name != "raw_id"}
        table = frame.select(
            LINE,
            names["raw_id"],
            **{
                name: pl.col(field).list.join(" ") if name in LISTS else pl.col(field)
                for name, field in attributes.items()
            },
        )
        return items_by_id(table, names["raw_id"], list(attributes), path, self.duplicate_items)


def _check_ids(frame: pl.LazyFrame, columns: list[str], path: Path) -> None:
    """Refuse ids that were arrays or objects, of which JSON's reader makes text."""
    nested = pl.any_horizontal(pl.col(name).str.contains(r"^[\[{]") for name in columns)
    if frame.select(nested.any()).collect(engine="streaming").item():
        where, row = row_fault(frame, path, nested, columns)
        raise UserError(f"{where}: expected ids as text or whole numbers, got {str(row)[:200]}")


def _detect(path: Path, fields: Mapping[int, Mapping[str, str]]) -> tuple[int, Mapping[str, str]]:
    """Return the year and the field names of the layout whose ids the first object has."""
    keys = first_object(path)
    for year, names in fields.items():
        needed = [names[name] for name in ("user", "item", "raw_id") if name in names]
        if isinstance(keys, dict) and all(name in keys for name in needed):
            return year, names
    wanted = " or ".join(str([names[key] for key in names]) for names in fields.values())
    held = str(list(keys) if isinstance(keys, dict) else keys)[:400]
    raise UserError(f"{place(path, 1)}: expected the fields {wanted}; it has {held}")
