"""Videos and who watched them: the published tables of bilibili, or MicroLens, which is public.

Source: Ni et al. (2023), https://arxiv.org/abs/2309.15379 (MicroLens).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources.behaviors import is_listed, read_listed
from seqrec.data.sources.checks import interactions, items_by_id
from seqrec.data.sources.reading import only_match
from seqrec.data.sources.tables import LINE, require_columns, scan_table
from seqrec.data.sources.times import TimeColumn


@dataclass(frozen=True, slots=True, kw_only=True)
class Bilibili(Preparation):
    """Tables of `userid`, `behaviors` and `videoid`, `description`, or MicroLens' files."""

    kind: ClassVar[str] = "bilibili"

    input: Path
    """Folder of behaviors.tsv and videos.tsv; or of MicroLens' *_pairs.csv (user, item, timestamp in milliseconds) and
    *_titles.csv (item, title)."""

    def read(self, scratch: Path) -> RawData:
        """Return who watched what, and the videos' texts."""
        if is_listed(self.input):
            return read_listed(self.input, "videos.tsv", "videoid", "description", scratch)
        path = only_match(self.input, "*_pairs.csv", "interactions")
        titles = only_match(self.input, "*_title*.csv", "titles")
        frame = scan_table(path, ",", scratch, quote=True)
        require_columns(frame, ["user", "item", "timestamp"], path)
        items = scan_table(titles, ",", scratch, quote=True)
        require_columns(items, ["item", "title"], titles)
        text = items_by_id(items.select(LINE, "item", "title"), "item", ["title"], titles)
        return RawData(interactions(frame, path, times=TimeColumn("timestamp", "ms")), text, origin=str(path))
