"""MIND, news and who read them, as Microsoft ships it. Source: Wu et al. (2020), https://msnews.github.io.

A user's history, which is in order, comes first, then the clicks in the impressions by time; of an item clicked twice
in a row the second is left out. Histories have no times, so the dataset has order alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from seqrec.basics.errors import UserError
from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources.behaviors import FILE, is_listed, read_listed
from seqrec.data.sources.checks import items_by_id
from seqrec.data.sources.reading import existing, place
from seqrec.data.sources.tables import LINE, scan_lines

NEWS = ("newsid", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
IMPRESSIONS = ("impression", "userid", "time", "history", "impressions")
TEXT = ("title", "category", "subcategory", "abstract")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mind(Preparation):
    """MIND small or large, or tables of `userid`, `behaviors` and `newsid`, `title`."""

    kind: ClassVar[str] = "mind"

    input: Path
    """Folder of news.tsv and behaviors.tsv, such as MINDsmall_train."""
    attributes: str = "title"
    """Text attributes to keep, in order, separated by commas: title, category, subcategory, abstract."""

    def read(self, scratch: Path) -> RawData:
        """Return what users read, and the news' texts."""
        if is_listed(self.input):
            return read_listed(self.input, "news.tsv", "newsid", "title", scratch)
        path, news_path = existing(self.input / FILE, FILE), existing(self.input / "news.tsv", "news.tsv")
        news = _fields(news_path, NEWS, scratch)
        text = items_by_id(news.select(LINE, "newsid", *TEXT), "newsid", TEXT, news_path)
        return RawData(_events(_fields(path, IMPRESSIONS, scratch), path), text, origin=str(path))


def _fields(path: Path, names: tuple[str, ...], scratch: Path) -> pl.LazyFrame:
    """Return a file of lines with tabs between fields, of which none may be missing.

    Raises:
        UserError: If a line has another number of fields; names the line.
    """
    lines = scan_lines(path, "text", scratch).filter(pl.col("text") != "")
    odd = lines.filter(pl.col("text").str.count_matches("\t") != len(names) - 1).head(1).collect()
    if not odd.is_empty():
        found = odd["text"][0].count("\t") + 1
        raise UserError(
            f"{place(path, odd[LINE][0])}: {found} fields, expected {len(names)} with tabs between them "
            f"({', '.join(names)}): {odd['text'][0][:80]!r}"
        )
    parts = pl.col("text").str.split_exact("\t", len(names) - 1).struct.rename_fields(list(names))
    return lines.select(LINE, parts.alias("fields")).unnest("fields")


def _events(rows: pl.LazyFrame, path: Path) -> pl.LazyFrame:
    """Return user and item, each user's events together and in order.

    Raises:
        UserError: If a line has no user or no valid time.
    """
    time = pl.col("time").str.to_datetime("%m/%d/%Y %I:%M:%S %p", strict=False)
    read = rows.select(LINE, "userid", "time", "history", when=time, clicks=_clicked("impressions"))
    faulty = read.filter((pl.col("userid") == "") | pl.col("when").is_null()).head(1).collect()
    if not faulty.is_empty():
        row = faulty.row(0, named=True)
        raise UserError(
            f"{place(path, row[LINE])}: expected a user and a time such as 11/12/2019 2:14:46 PM, got "
            f"{row['userid']!r} and {row['time']!r}"
        )
    longest = pl.col("history").sort_by(pl.col("history").str.len_bytes()).last()
    users = read.group_by("userid").agg(first=pl.col(LINE).min(), history=longest)
    histories = users.select("userid", "first", when=None, item=pl.col("history").str.extract_all(r"[^ ]+"))
    clicks = read.select("userid", "when", item="clicks").join(users.select("userid", "first"), on="userid")
    together = pl.concat(
        [
            histories.with_columns(pl.col("when").cast(pl.Datetime("us"))),
            clicks.sort("when", maintain_order=True).select("userid", "first", "when", "item"),
        ]
    ).explode("item")
    ordered = together.filter(pl.col("item").is_not_null()).sort("first", "when", nulls_last=False, maintain_order=True)
    repeats = (pl.col("item") == pl.col("item").shift()) & (pl.col("userid") == pl.col("userid").shift())
    return ordered.filter(~repeats.fill_null(value=False)).select(user="userid", item="item")


def _clicked(column: str) -> pl.Expr:
    """Return the clicked ones of impressions such as `N1-0 N2-1`."""
    found = pl.col(column).str.extract_all(r"\S+-1(?:\s|$)")
    return found.list.eval(pl.element().str.strip_chars().str.strip_suffix("-1"))
