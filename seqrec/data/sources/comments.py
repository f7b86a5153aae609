"""Videos, their comments, and what users watched and answered: four tables."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from seqrec.basics.errors import UserError
from seqrec.data.comments import RawComments
from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources.cells import plain_ids
from seqrec.data.sources.checks import interactions, items_by_id
from seqrec.data.sources.reading import existing, place
from seqrec.data.sources.tables import LINE, require_columns
from seqrec.data.sources.tabular import scan_any
from seqrec.data.sources.times import TimeColumn, Unit

VIDEO, COMMENT = ("video_id", "photo_id", "item_id"), ("comment_id",)
TEXT, TIME = ("content", "text"), ("timestamp", "time", "published")
"""Names of columns, of which a table has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommentTables(Preparation):
    """Four tables: videos, comments, and the events of users with both."""

    kind: ClassVar[str] = "comments"

    videos: Path
    """Videos, or whatever is commented on: video_id (or photo_id, item_id), text attributes, perhaps timestamp, when it
    appeared. All tables: .csv, .tsv (either .gz too) or .parquet."""
    comments: Path
    """Comments: comment_id, video_id, content (or text), perhaps timestamp. Counts of likes are not read: they tell
    what happened later."""
    video_events: Path
    """user_id, video_id, timestamp: what a user watched and liked."""
    comment_events: Path
    """user_id, comment_id, timestamp: comments that a user liked, answered or wrote."""
    time_unit: Unit = "s"
    """Unit of all times, see the source table."""

    def read(self, scratch: Path) -> RawData:
        """Return the events with videos, their texts, and the comments."""
        path = existing(self.video_events, "--video_events")
        frame, video = self._scan(path, scratch, VIDEO, ("user_id", "timestamp"))
        times = TimeColumn("timestamp", self.time_unit, can_choose=True)
        events = interactions(frame, path, "user_id", video, times)
        texts, published = self._read_videos(scratch)
        unknown = events.select("item").unique().join(texts.lazy(), left_on="item", right_on="raw_id", how="anti")
        if len(lacking := unknown.collect(engine="streaming")):
            raise UserError(
                f"{path}: {len(lacking):,} videos are not among --videos {self.videos}, such as {lacking['item'][0]!r}"
            )
        comments = self._read_comments(scratch, texts["raw_id"])
        where = existing(self.comment_events, "--comment_events")
        frame, comment = self._scan(where, scratch, COMMENT, ("user_id", "timestamp"))
        taken = interactions(frame, where, "user_id", comment, times).collect(engine="streaming")
        # As exact as the source has them: only then seconds.
        taken = taken.with_row_index("row").sort("timestamp", "row").drop("row")
        found = taken.select("user", pl.col("item").alias("comment"), pl.col("timestamp").dt.epoch("s"))
        raw = RawComments(comments, found, published, str(where))
        return RawData(events, texts, origin=str(path), comments=raw)

    def _scan(
        self, path: Path, scratch: Path, key: tuple[str, ...], others: tuple[str, ...] = ()
    ) -> tuple[pl.LazyFrame, str]:
        """Return a table and the name of its column of ids, which are plain text."""
        frame = scan_any(path, scratch)
        names = frame.collect_schema().names()
        found = next((name for name in key if name in names), key[0])
        require_columns(frame, [found, *others], path)
        for name in (found, *(other for other in others if other == "user_id")):
            frame = plain_ids(frame, name, str(path))
        return frame, found

    def _read_videos(self, scratch: Path) -> tuple[pl.DataFrame, pl.DataFrame | None]:
        """Return raw_id and texts, and when videos appeared, if the table says so."""
        path = existing(self.videos, "--videos")
        frame, video = self._scan(path, scratch, VIDEO)
        types = frame.collect_schema()
        texts = [name for name, kind in types.items() if kind == pl.String and name not in (video, *TIME, LINE)]
        wanted = list(self.attribute_names) or (["title"] if "title" in texts else texts)
        require_columns(frame, wanted, path)
        if not wanted:
            raise UserError(f"{path}: expected a column of text beside {video!r}, such as title")
        rows = items_by_id(frame.select(LINE, video, *wanted), video, wanted, path)
        return rows, self._times(frame, path, video)

    def _times(self, frame: pl.LazyFrame, path: Path, key: str) -> pl.DataFrame | None:
        """Return `item` and `published` in seconds, or None for a table without such a column."""
        column = next((name for name in TIME if name in frame.collect_schema().names()), None)
        if column is None:
            return None
        time = TimeColumn(column, self.time_unit, can_choose=True)
        read = interactions(frame, path, key, key, time).select("item", "timestamp").collect(engine="streaming")
        return read.select("item", pl.col("timestamp").dt.epoch("s").alias("published"))

    def _read_comments(self, scratch: Path, videos: pl.Series) -> pl.DataFrame:
        """Return raw_id, item, text and perhaps published of all comments.

        Raises:
            UserError: If a comment belongs to no video.
        """
        path = existing(self.comments, "--comments")
        frame, comment = self._scan(path, scratch, COMMENT)
        names = frame.collect_schema().names()
        video, text = (next((name for name in some if name in names), some[0]) for some in (VIDEO, TEXT))
        require_columns(frame, [video, text], path)
        frame = plain_ids(frame, video, str(path))
        rows = items_by_id(frame.select(LINE, comment, video, text), comment, [video, text], path)
        lines = frame.select(LINE, pl.col(video).cast(pl.String)).collect(engine="streaming")
        astray = lines.filter(~pl.col(video).is_in(videos.implode()).fill_null(value=False))
        if len(astray):
            raise UserError(
                f"{place(path, astray[LINE][0])}: the comment belongs to {video} {astray[video][0]!r}, which is not "
                f"among --videos {self.videos.name}; {len(astray):,} comments are like this"
            )
        found = rows.select(
            "raw_id",
            pl.col(video).cast(pl.String).alias("item"),
            pl.col(text).cast(pl.String).fill_null("").alias("text"),
        )
        times = self._times(frame, path, comment)
        return found if times is None else found.with_columns(times["published"])
