"""Amazon reviews of 2018 and 2023 as published: JSON lines, plain or gzip, of reviews and of item metadata.

2018: `reviewerID`, `asin`, `unixReviewTime`, `overall`; metadata `asin`, `title`, `brand`, `category`.
2023: `user_id`, `parent_asin`, `timestamp` in ms, `rating`; metadata `parent_asin`, `title`, `store`, `categories`.
Which of the two a file is, its first line says. Attributes are called as in 2018 for both: title, brand, category, and
on demand (`--attributes`) description and feature. Lists become one text joined by blanks.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from seqrec.errors import UserError
from seqrec.preparation import Preparation, RawData
from seqrec.sources.reading import existing, interactions, line_chunks, only_match, scan_json_lines, unique_items

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
        types = {"user": pl.String, "item": pl.String, "timestamp": pl.Int64, "rating": pl.Float64}
        frame = scan_json_lines(path, {names[name]: types[name] for name in types}, scratch)
        frame = frame.rename({field: name for name, field in names.items()})
        seconds = pl.col("timestamp") if year == 2018 else pl.col("timestamp") // 1000
        return interactions(frame, path, 1, seconds, pl.col("rating"))

    def _read_meta(self, path: Path, scratch: Path) -> pl.DataFrame:
        year, names = _detect(path, META_FIELDS)
        extra = {name: field for name, field in ON_DEMAND[year].items() if name in self.attribute_names}
        names = {**names, **extra}
        schema = {field: pl.List(pl.String) if name in LISTS else pl.String() for name, field in names.items()}
        frame = scan_json_lines(path, schema, scratch)
        table = frame.select(
            "line",
            *(
                (pl.col(field).list.join(" ") if name in LISTS else pl.col(field)).alias(name)
                for name, field in names.items()
            ),
        )
        return unique_items(table.collect(engine="streaming"), path, 1, self.duplicate_items)


def _detect(path: Path, fields: Mapping[int, Mapping[str, str]]) -> tuple[int, Mapping[str, str]]:
    """Return the year and the field names of the layout whose ids the first line has."""
    _, chunk = next(line_chunks(path, 1 << 16), (1, b""))
    first = chunk.split(b"\n", 1)[0]
    try:
        keys: Any = json.loads(first)
    except ValueError as error:
        raise UserError(f"{path}, line 1: not JSON: {first[:80]!r}") from error
    for year, names in fields.items():
        needed = [names[name] for name in ("user", "item", "raw_id") if name in names]
        if isinstance(keys, dict) and all(name in keys for name in needed):
            return year, names
    wanted = " or ".join(str([names[key] for key in names]) for names in fields.values())
    raise UserError(
        f"{path}, line 1: expected the fields {wanted}; it has {list(keys) if isinstance(keys, dict) else keys!r}"
    )
