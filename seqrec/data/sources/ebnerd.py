"""EB-NeRD's clicks as the RecSys Challenge of 2024 publishes them: `history.parquet` and `articles.parquet`.

Source: https://recsys.eb.dk/dataset. A row of `history.parquet` is a user with lists of what they read, and when. Its
items are those that were read, of all articles.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources.checks import interactions
from seqrec.data.sources.hllm import explode_lists
from seqrec.data.sources.reading import existing
from seqrec.data.sources.tables import require_columns, scan_parquet
from seqrec.data.sources.tabular import read_items
from seqrec.data.sources.times import TimeColumn

ITEM, TIME = "article_id_fixed", "impression_time_fixed"
TEXT = ("title", "subtitle", "topics")


@dataclass(frozen=True, slots=True, kw_only=True)
class EbNerd(Preparation):
    """EB-NeRD's histories and articles."""

    kind: ClassVar[str] = "ebnerd"

    input: Path
    """Folder of articles.parquet and history.parquet or train/history.parquet."""

    def read(self, scratch: Path) -> RawData:
        """Return what users read, and the articles' texts."""
        own = self.input / "history.parquet"
        path = existing(own if own.is_file() else self.input / "train" / "history.parquet", "history.parquet")
        articles = existing(self.input / "articles.parquet", "articles.parquet")
        frame = scan_parquet(path, scratch)
        require_columns(frame, ["user_id", ITEM, TIME], path)
        frame = explode_lists(frame, path, [ITEM, TIME])
        events = interactions(frame, path, "user_id", ITEM, TimeColumn(TIME))
        texts = read_items(articles, scratch, "article_id", self.attribute_names or TEXT)
        return RawData(events, texts, origin=str(path))
