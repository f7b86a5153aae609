"""Published layouts of items with comments under them, as the four tables that `comments` reads.

A layout names its columns as its source does. Rows about videos or comments that the source itself does not describe
are left out, and said so.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import polars as pl

from seqrec.basics.errors import UserError
from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources.comments import CommentTables
from seqrec.data.sources.reading import existing, only_match
from seqrec.data.sources.tables import LINE, require_columns, scan_table
from seqrec.data.sources.tabular import scan_any

log = logging.getLogger(__name__)
Names = Mapping[str, tuple[str, ...]]
"""Columns by their own names here, each with the names it may have in a source."""
TIMES: Names = {"timestamp": ("created_utc", "timestamp")}
ITEM = ("item_id", "parent_asin", "asin", "business_id")
DELETED = ["", "[deleted]", "[removed]"]
"""What stands where an author is gone."""


class Tables(NamedTuple):
    """What `CommentTables` reads; times are in seconds."""

    videos: pl.LazyFrame
    """video_id, title, perhaps timestamp."""
    comments: pl.LazyFrame
    """comment_id, video_id, text, perhaps timestamp."""
    video_events: pl.LazyFrame
    """user_id, video_id, timestamp."""
    comment_events: pl.LazyFrame
    """user_id, comment_id, timestamp."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommentLayout(Preparation, ABC):
    """A layout that is four tables under other names."""

    @abstractmethod
    def tables(self, scratch: Path) -> Tables:
        """Return the four tables."""

    def read(self, scratch: Path) -> RawData:
        """Return what the four tables hold."""
        tables = self.tables(scratch)
        videos, comments = tables.videos, tables.comments
        comments = self._known("comments", comments, videos, "video_id")
        found = Tables(
            videos,
            comments,
            self._known("visits", tables.video_events, videos, "video_id"),
            self._known("events with comments", tables.comment_events, comments, "comment_id"),
        )
        folder = scratch / "tables"
        folder.mkdir()
        paths = {name: folder / f"{name}.parquet" for name in Tables._fields}
        for name, frame in found._asdict().items():
            frame.drop(LINE, strict=False).sink_parquet(paths[name])
        read = CommentTables(
            name=self.name,
            attributes=self.attributes,
            videos=paths["videos"],
            comments=paths["comments"],
            video_events=paths["video_events"],
            comment_events=paths["comment_events"],
        )
        return read.read(scratch)

    def _known(self, what: str, frame: pl.LazyFrame, others: pl.LazyFrame, key: str) -> pl.LazyFrame:
        kept = frame.join(others.select(key).unique(), on=key, how="semi", maintain_order="left")
        before, after = (f.select(pl.len()).collect(engine="streaming").item() for f in (frame, kept))
        if not after:
            raise UserError(
                f"none of the {before:,} {what} has a {key} that is described: are all files of one source?"
            )
        if after < before:
            log.info("%s %s with an unknown %s are left out", f"{before - after:,}", what, key)
        return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class KuaiComt(CommentLayout):
    """KuaiComt: short videos of Kuaishou, what users liked or watched long, and comments they liked or answered."""

    kind: ClassVar[str] = "kuaicomt"

    input: Path
    """Folder of video_features.csv (video_id, caption), comment_features.csv (comment_id, comment_content, video_id),
    user_video_inter.csv (user_id, video_id, is_like, long_view, time_ms) and user_comment_inter.csv (user_id,
    comment_id, is_like, is_reply, time_stamp in seconds)."""

    def tables(self, scratch: Path) -> Tables:
        """Return the tables; of events those that are a like, a long view or an answer."""

        def table(name: str, *columns: str) -> pl.LazyFrame:
            path = existing(self.input / name, "--input")
            frame = scan_table(path, ",", scratch, quote=True)
            require_columns(frame, columns, path)
            return frame.select(*columns)

        def either(*names: str) -> pl.Expr:
            return pl.any_horizontal(pl.col(name).cast(pl.Float64, strict=False) == 1 for name in names)

        videos = table("video_features.csv", "video_id", "caption")
        comments = table("comment_features.csv", "comment_id", "comment_content", "video_id")
        watched = table("user_video_inter.csv", "user_id", "video_id", "is_like", "long_view", "time_ms")
        taken = table("user_comment_inter.csv", "user_id", "comment_id", "is_like", "is_reply", "time_stamp")
        seconds = pl.col("time_ms").cast(pl.Float64, strict=False) // 1000
        return Tables(
            videos.rename({"caption": "title"}),
            comments.rename({"comment_content": "text"}),
            watched.filter(either("is_like", "long_view")).select(
                "user_id", "video_id", seconds.cast(pl.Int64).alias("timestamp")
            ),
            taken.filter(either("is_like", "is_reply")).select("user_id", "comment_id", timestamp="time_stamp"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Threads(CommentLayout):
    """Posts and the replies under them, such as Pushshift's or ConvoKit's of Reddit.

    A user visits a post with their first reply there, and takes up the replies of others that they answer.
    """

    kind: ClassVar[str] = "threads"

    posts: Path
    """Posts: id (or post_id), title, perhaps created_utc (or timestamp, in seconds). Both tables: .csv, .tsv (either
    .gz too) or .parquet."""
    replies: Path
    """Replies: id (or reply_id), link_id (or post_id), parent_id (of a reply, or of the post), author (or user_id),
    body (or text), created_utc (or timestamp, in seconds). Prefixes of ids such as t3_ are left out. A reply without an
    author is a comment all the same."""

    def tables(self, scratch: Path) -> Tables:
        """Return the tables."""
        posts, replies = existing(self.posts, "--posts"), existing(self.replies, "--replies")
        heads = _columns(scan_any(posts, scratch), posts, {"video_id": ("id", "post_id"), "title": ("title",)}, TIMES)
        names = {
            "comment_id": ("id", "reply_id"),
            "video_id": ("link_id", "post_id"),
            "parent": ("parent_id",),
            "user_id": ("author", "user_id"),
            "text": ("body", "text"),
        }
        found = _columns(scan_any(replies, scratch), replies, {**names, **TIMES})
        found = found.with_columns(pl.col("video_id", "comment_id", "parent").cast(pl.String).str.replace(r"^t\d_", ""))
        authored = found.filter(pl.col("user_id").is_not_null() & ~pl.col("user_id").cast(pl.String).is_in(DELETED))
        visits = authored.group_by("user_id", "video_id", maintain_order=True).agg(
            pl.col("timestamp").cast(pl.Int64).min()
        )
        parents = found.select(parent="comment_id", wrote="user_id")
        answers = authored.join(parents, on="parent", how="inner", maintain_order="left")
        answers = answers.filter(pl.col("wrote").is_null() | (pl.col("wrote") != pl.col("user_id")))
        return Tables(
            heads.with_columns(pl.col("video_id").cast(pl.String).str.replace(r"^t\d_", "")),
            found.select("comment_id", "video_id", "text", "timestamp"),
            visits,
            answers.select("user_id", "timestamp", comment_id="parent"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviews(CommentLayout):
    """Reviews as comments under what they review: a user takes up the one that they wrote.

    A user's own review did not stand there before, so all reviews of an item are candidates, later ones among them.
    """

    kind: ClassVar[str] = "reviews"

    reviews: Path
    """user_id, item_id (or parent_asin, asin, business_id), text, timestamp in seconds. Both tables: .csv, .tsv (either
    .gz too) or .parquet."""
    items: Path
    """item_id (or parent_asin, asin, business_id) and title (or name)."""

    def tables(self, scratch: Path) -> Tables:
        """Return the tables."""
        items, reviews = existing(self.items, "--items"), existing(self.reviews, "--reviews")
        videos = _columns(scan_any(items, scratch), items, {"video_id": ITEM, "title": ("title", "name")})
        names = {"user_id": ("user_id",), "video_id": ITEM, "text": ("text",), "timestamp": ("timestamp",)}
        return _written(videos, _columns(scan_any(reviews, scratch), reviews, names))


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroLensComments(CommentLayout):
    """MicroLens with its comments: a user takes up the one that they wrote.

    As with reviews, all comments under a video are candidates.
    """

    kind: ClassVar[str] = "microlens-comments"

    input: Path
    """Folder of *_pairs.csv (user, item, timestamp in milliseconds), *_title*.csv (item, title) and *_comment*.txt,
    lines of user, item and comment between tabs."""

    def tables(self, scratch: Path) -> Tables:
        """Return the tables."""
        pairs, titles, comments = (
            only_match(self.input, pattern, what)
            for pattern, what in (("*_pairs.csv", "visits"), ("*_title*.csv", "titles"), ("*_comment*.txt", "comments"))
        )
        visits = scan_table(pairs, ",", scratch, quote=True)
        require_columns(visits, ["user", "item", "timestamp"], pairs)
        videos = scan_table(titles, ",", scratch, quote=True)
        require_columns(videos, ["item", "title"], titles)
        said = scan_table(comments, "\t", scratch, False, ("user", "item", "text"))
        seconds = pl.col("timestamp").cast(pl.Int64, strict=False) // 1000
        said = said.join(
            visits.select("user", "item", seconds).unique(["user", "item"], keep="last", maintain_order=True),
            on=["user", "item"],
            maintain_order="left",
        )
        return _written(
            videos.select("title", video_id="item"),
            said.select("text", "timestamp", user_id="user", video_id="item"),
        )


def _columns(frame: pl.LazyFrame, path: Path, names: Names, optional: Names | None = None) -> pl.LazyFrame:
    """Return the columns by their own names here, of which a table has each by one of several names."""
    there, found = frame.collect_schema().names(), {}
    for own, some in {**names, **(optional or {})}.items():
        if name := next((name for name in some if name in there), some[0] if own in names else None):
            found[own] = name
    require_columns(frame, list(found.values()), path)
    return frame.select(**{own: pl.col(name) for own, name in found.items()})


def _written(videos: pl.LazyFrame, said: pl.LazyFrame) -> Tables:
    """Return the tables of comments whose writers are those who take them up: user_id, video_id, text, timestamp."""
    said = said.with_columns(pl.format("c{}", pl.int_range(pl.len())).alias("comment_id"))
    return Tables(
        videos,
        said.select("comment_id", "video_id", "text"),
        said.select("user_id", "video_id", "timestamp"),
        said.select("user_id", "comment_id", "timestamp"),
    )
