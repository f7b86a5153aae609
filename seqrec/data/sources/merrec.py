"""MerRec's events as Mercari publishes them: Parquet files of one folder, a row per event.

Source: https://huggingface.co/datasets/mercari-us/merrec. Every event counts, whatever its kind; `--min_user_count
1024` keeps the long histories that PerSRec reports on. An item's texts are those of its first event.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from seqrec.basics.errors import MissingFileError
from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources.checks import interactions
from seqrec.data.sources.tables import require_columns, scan_parquet
from seqrec.data.sources.times import TimeColumn

CATEGORIES = ("c2_name", "c1_name", "c0_name")
"""From the finest to the coarsest; the first that is there counts."""
EVENT = ("user_id", "stime")


@dataclass(frozen=True, slots=True, kw_only=True)
class MerRec(Preparation):
    """MerRec's Parquet files, a row per event."""

    kind: ClassVar[str] = "merrec"

    input: Path
    """Folder of the .parquet files; those of folders in it count, too."""
    object_column: str = "product_id"
    """Column of the item: product_id, of which several sellers may have one, or item_id."""

    def read(self, scratch: Path) -> RawData:
        """Return the events, and the texts of the items' first ones."""
        files = sorted(self.input.rglob("*.parquet"))
        if not files:
            raise MissingFileError(f"--input: {self.input} must hold MerRec's .parquet files, there is none")
        item, frames, texts = self.object_column, [], []
        for path in files:
            frame = scan_parquet(path, scratch)
            require_columns(frame, [*EVENT, item, "brand_name", *CATEGORIES], path)
            frames.append(interactions(frame, path, "user_id", item, TimeColumn("stime", "iso")))
            category = pl.coalesce(
                pl.when(pl.col(name).str.strip_chars() != "").then(pl.col(name)) for name in CATEGORIES
            )
            texts.append(frame.select(raw_id=pl.col(item).cast(pl.String), brand="brand_name", category=category))
        firsts = pl.concat(texts).group_by("raw_id", maintain_order=True).first()
        return RawData(pl.concat(frames), firsts.collect(engine="streaming"), origin=str(self.input))
