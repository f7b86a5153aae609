"""H&M's purchases as Kaggle ships them. Source: https://kaggle.com/competitions/h-and-m-personalized-fashion-recommendations.

Times are days: what somebody bought on one day has the order of the file, which means nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources.behaviors import is_listed, read_listed
from seqrec.data.sources.checks import interactions, items_by_id
from seqrec.data.sources.reading import existing
from seqrec.data.sources.tables import LINE, require_columns, scan_table
from seqrec.data.sources.times import TimeColumn

EVENTS, ARTICLES = "transactions_train.csv", "articles.csv"
TEXT = {
    "title": "prod_name",
    "type": "product_type_name",
    "colour": "colour_group_name",
    "description": "detail_desc",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HM(Preparation):
    """H&M's files, or tables of `userid`, `behaviors` and `itemid`, `description`."""

    kind: ClassVar[str] = "hm"

    input: Path
    """Folder of transactions_train.csv and articles.csv."""

    def read(self, scratch: Path) -> RawData:
        """Return the purchases, and the articles' texts."""
        if is_listed(self.input):
            return read_listed(self.input, "items.tsv", "itemid", "description", scratch)
        path, articles = existing(self.input / EVENTS, EVENTS), existing(self.input / ARTICLES, ARTICLES)
        frame = scan_table(path, ",", scratch, quote=True)
        require_columns(frame, ["t_dat", "customer_id", "article_id"], path)
        items = scan_table(articles, ",", scratch, quote=True)
        require_columns(items, ["article_id", *TEXT.values()], articles)
        named = items.select(LINE, "article_id", **{name: pl.col(column) for name, column in TEXT.items()})
        text = items_by_id(named, "article_id", list(TEXT), articles)
        events = interactions(frame, path, "customer_id", "article_id", TimeColumn("t_dat", "iso"))
        return RawData(events, text, origin=str(path))
