"""From raw interactions to a prepared dataset. Letters: U users, N items, E interactions.

A source (`seqrec/sources/`) is a frozen dataclass with the options below and a `read` that gives `RawData`.
`prepare` numbers users and items, filters, orders, cleans the text and writes `data/<name>/` in one rename.

The steps, in this order; each is skipped when its option is not given:
text missing and `on_missing_text=drop` -> `min_rating` -> order by (user, time, position in the source)
-> `drop_exact_duplicates` -> `dedupe` -> `min_sc` -> `min_uc` -> `k_core` -> `sample_users` -> `max_items_per_user`.

Users are numbered 0..U-1 by first appearance in the source. Items are numbered 1..N: in the source's own order
where it has one (item2index, smap, an integer-keyed .item file), else by first appearance. Items without a remaining
interaction are dropped; the others keep their order.
"""

import logging
import shutil
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
import tyro
from numpy.typing import NDArray

from seqrec.basics.arrays import hash_arrays
from seqrec.basics.errors import UserError
from seqrec.basics.files import exclusive, put_back, write_atomically, write_json
from seqrec.basics.names import check_name
from seqrec.basics.paths import ROOT
from seqrec.basics.progress import progress
from seqrec.data.comments import COMMENTS, RawComments, write_comments
from seqrec.data.dataset_files import FORMAT, hash_item_ids, write_table
from seqrec.data.item_text import fill_missing, has_text, item_text
from seqrec.data.publishing import publish

log = logging.getLogger(__name__)
DATA_DIR = ROOT / "data"


@dataclass(frozen=True, slots=True)
class RawData:
    """Raw data of a source: interactions in source order, and the items' texts."""

    interactions: pl.LazyFrame
    """user str, item str, optional timestamp, optional rating float64; no nulls. Times are Datetime in UTC as exact as
    the source has them, or int64 in seconds."""
    items: pl.DataFrame | None = None
    """raw_id str, unique, then one str column per attribute; None when the source has no text."""
    numbered: bool = False
    """Whether the rows of `items` number the items; any other item in an interaction is then an error."""
    origin: str = "the source"
    """The file that interactions come from, for errors."""
    comments: RawComments | None = None
    """Comments under the items, if the source has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation(ABC):
    """Options that every source shares."""

    kind: ClassVar[str]

    name: str
    """Name of the dataset: it is written to <data_dir>/<name>."""
    data_dir: Path = DATA_DIR
    """Folder of the prepared datasets."""
    overwrite: bool = False
    """Replace a dataset of this name that differs."""
    attributes: str = ""
    """Text attributes to keep, in order, separated by commas; empty keeps all that the source offers."""
    raw_text: bool = False
    """Keep texts as the source has them: tags, entities and blanks stay."""
    on_missing_text: Literal["error", "drop", "item_id"] = "error"
    """Items without text: error (stop), drop, or item_id (use the id as the first attribute)."""
    min_rating: float | None = None
    """Keep interactions rated at least this."""
    drop_exact_duplicates: bool = False
    """Keep only the first of interactions with the same user, item and time, at the source's resolution."""
    dedupe: bool = False
    """Keep only a user's first interaction with an item."""
    min_sc: Annotated[int, tyro.conf.arg(aliases=["--min_item_count"])] = 0
    """Keep items with at least this many interactions (one pass, before min_uc)."""
    min_uc: Annotated[int, tyro.conf.arg(aliases=["--min_user_count"])] = 0
    """Keep users with at least this many interactions (one pass)."""
    k_core: int = 0
    """Repeat until every user and every item has at least this many interactions."""
    sample_users: int = 0
    """Keep this many users, drawn by seed; 0 keeps all."""
    max_items_per_user: int = 0
    """Keep a user's last interactions, at most this many; 0 keeps all."""
    seed: int = 42
    """Seed of all random draws."""

    def __post_init__(self) -> None:
        check_name("--name", self.name)
        for option in ("min_sc", "min_uc", "k_core", "sample_users", "max_items_per_user", "seed"):
            if getattr(self, option) < 0:
                raise UserError(f"--{option} must be 0 or more, got {getattr(self, option)}")

    @abstractmethod
    def read(self, scratch: Path) -> RawData:
        """Return the raw data; scratch is an empty folder that lives until the dataset is written."""

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Attributes asked for, in order; empty means all."""
        names = tuple(part.strip() for part in self.attributes.split(",") if part.strip())
        if len(set(names)) < len(names):
            raise UserError(f"--attributes names one twice: {self.attributes}")
        return names


@dataclass(slots=True)
class Events:
    """Numbered interactions, and how many each filter removed."""

    frame: pl.DataFrame
    """(E,) rows: user and item uint32 codes, timestamp and rating float64 where the source has them; the timestamp
    is int64 in seconds once the events are in order."""
    removed: list[tuple[str, int]] = field(default_factory=list)
    """(step, interactions removed) in order."""

    def codes(self, column: str) -> NDArray[np.uint32]:
        """Return the (E,) uint32 codes of `user` or `item`."""
        return self.frame[column].to_numpy()

    def keep(self, step: str, mask: NDArray[np.bool_] | pl.Series) -> None:
        """Keep the interactions of an (E,) mask; record the number removed under the step's name.

        Raises:
            UserError: If none is left; the message says how many each step removed.
        """
        self.replace(step, self.frame.filter(pl.Series(values=mask)))

    def replace(self, step: str, frame: pl.DataFrame) -> None:
        """Replace the frame by one with fewer rows and record the step."""
        self.removed.append((step, len(self.frame) - len(frame)))
        self.frame = frame
        if frame.is_empty():
            steps = ", ".join(f"{name} removed {count:,}" for name, count in self.removed)
            raise UserError(f"no interaction is left after filtering: {steps}. Loosen the last of these.")


def prepare(config: Preparation) -> Path:
    """Read, filter and number a source, write it as a dataset and return its folder.

    The folder appears whole or not at all. An existing dataset with the same bytes is left as it is.

    Raises:
        UserError: If another dataset lies there and overwrite is not set.
        UserError: If the input is faulty or nothing is left of it; the message says where.
    """
    target, work = config.data_dir / config.name, config.data_dir / f".{config.name}.preparing"
    waiting = f"waiting for another process that prepares {config.name}"
    with exclusive(config.data_dir / f".{config.name}.lock", waiting):
        put_back(target)
        shutil.rmtree(work, ignore_errors=True)  # left by a process that was killed
        try:
            scratch, folder = work / "scratch", work / "dataset"
            scratch.mkdir(parents=True)
            with progress(total=4, desc=f"preparing {config.name}", unit="step") as bar:
                raw = config.read(scratch)
                bar.update()
                users, items, events = number(raw)
                text = item_text(items, raw.items, config.attribute_names, config.raw_text)
                bar.update()
                filter_events(events, config, has_text(text))
                bar.update()
                write_dataset(folder, config, users, text, events, raw.comments)
                bar.update()
            return publish(folder, target, config.overwrite)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def number(raw: RawData) -> tuple[pl.DataFrame, pl.DataFrame, Events]:
    """Return users and items (columns raw_id, code; rows in order of code) and the coded events.

    Raises:
        UserError: If there are no interactions, or an item is not among a numbered source's items.
    """
    rows = raw.interactions.with_row_index("row")
    users = _first_appearance(rows, "user")
    if users.is_empty():
        raise UserError(f"{raw.origin} holds no interactions")
    if raw.numbered and raw.items is not None:
        items = raw.items.select("raw_id").with_row_index("code").select("raw_id", "code")
    else:
        items = _first_appearance(rows, "item")
    names = raw.interactions.collect_schema().names()
    events = (
        raw.interactions.join(_lookup(users, "user"), on="user", how="left", maintain_order="left")
        .join(_lookup(items, "item"), on="item", how="left", maintain_order="left")
        .select(
            pl.col("user_code").alias("user"),
            pl.col("item_code").alias("item"),
            *(pl.col(name) for name in ("timestamp", "rating") if name in names),
        )
        .collect(engine="streaming")
    )
    if events["item"].null_count():
        row = int(events["item"].is_null().arg_max() or 0)
        user, item = raw.interactions.slice(row, 1).select("user", "item").collect().row(0)
        raise UserError(
            f"{raw.origin}: item {item!r} of user {user!r} is out of range: the source numbers "
            f"{len(items):,} items and this is none of them. Are both files from one preparation?"
        )
    return users, items, Events(events)


def _first_appearance(rows: pl.LazyFrame, column: str) -> pl.DataFrame:
    firsts = rows.group_by(pl.col(column).alias("raw_id")).agg(pl.col("row").min())
    return (
        firsts.sort("row").collect(engine="streaming").select("raw_id").with_row_index("code").select("raw_id", "code")
    )


def _lookup(table: pl.DataFrame, column: str) -> pl.LazyFrame:
    return table.lazy().select(pl.col("raw_id").alias(column), pl.col("code").alias(f"{column}_code"))


def filter_events(events: Events, config: Preparation, with_text: NDArray[np.bool_]) -> None:
    """Apply the steps of the module docstring to the events; with_text is (items,) bool by item code."""
    if config.on_missing_text == "drop":
        events.keep("on_missing_text=drop", with_text[events.codes("item")])
    if config.min_rating is not None:
        if "rating" not in events.frame.columns:
            raise UserError(f"--min_rating {config.min_rating}: the source has no ratings")
        events.keep(f"min_rating={config.min_rating}", events.frame["rating"] >= config.min_rating)
    keys = [key for key in ("user", "timestamp") if key in events.frame.columns]
    events.frame = events.frame.drop("rating", strict=False).sort(keys, maintain_order=True)
    if events.frame.schema.get("timestamp") not in (None, pl.Int64):  # sorted by what was read, kept in seconds
        events.frame = events.frame.with_columns(pl.col("timestamp").dt.epoch("s"))
    if config.drop_exact_duplicates:
        if "timestamp" not in events.frame.columns:
            raise UserError(
                "--drop_exact_duplicates: the source has no times; --dedupe keeps one of each user and item"
            )
        events.replace(
            "drop_exact_duplicates",
            events.frame.unique(["user", "item", "timestamp"], keep="first", maintain_order=True),
        )
    if config.dedupe:
        events.replace("dedupe", events.frame.unique(["user", "item"], keep="first", maintain_order=True))
    if config.min_sc:
        events.keep(f"min_sc={config.min_sc}", _frequent(events.codes("item"), config.min_sc))
    if config.min_uc:
        events.keep(f"min_uc={config.min_uc}", _frequent(events.codes("user"), config.min_uc))
    if config.k_core:
        keep_core(events, config.k_core)
    if config.sample_users:
        _sample_users(events, config.sample_users, config.seed)
    if config.max_items_per_user:
        ends = np.cumsum(np.bincount(events.codes("user")))[events.codes("user")]
        latest = ends - np.arange(len(events.frame)) <= config.max_items_per_user
        events.keep(f"max_items_per_user={config.max_items_per_user}", latest)


def keep_core(events: Events, k: int) -> None:
    """Drop users and items with fewer than k interactions until there are none."""
    frame, size = events.frame, -1
    while len(frame) != size:
        size = len(frame)
        enough = _frequent(frame["user"].to_numpy(), k) & _frequent(frame["item"].to_numpy(), k)
        frame = frame.filter(pl.Series(values=enough))
    events.replace(f"k_core={k}", frame)


def _frequent(codes: NDArray[np.uint32], least: int) -> NDArray[np.bool_]:
    return np.asarray((np.bincount(codes) >= least)[codes])


def _sample_users(events: Events, count: int, seed: int) -> None:
    present = np.unique(events.codes("user"))
    if count > len(present):
        raise UserError(f"--sample_users {count}: only {len(present):,} users are left after the other filters")
    chosen = np.random.default_rng(seed).choice(present, size=count, replace=False)
    mask = np.zeros(int(present[-1]) + 1, dtype=bool)
    mask[chosen] = True
    events.keep(f"sample_users={count}", mask[events.codes("user")])


def write_dataset(
    folder: Path,
    config: Preparation,
    users: pl.DataFrame,
    text: pl.DataFrame,
    events: Events,
    comments: RawComments | None = None,
) -> None:
    """Write the files of a dataset from raw ids by code and the filtered events, ordered by user and time."""
    counts = np.bincount(events.codes("user"), minlength=len(users))
    bought = np.bincount(events.codes("item"), minlength=len(text)) > 0
    offsets = np.concatenate([[0], np.cumsum(counts[counts > 0])]).astype(np.int64)
    items = np.cumsum(bought).astype(np.int32)[events.codes("item")]
    user_table = users.filter(pl.Series(values=counts > 0)).select("raw_id")
    item_table = fill_missing(text.filter(pl.Series(values=bought)), config.on_missing_text)
    arrays: dict[str, NDArray[Any]] = {"offsets": offsets, "items": items}
    if "timestamp" in events.frame.columns:
        arrays["timestamps"] = events.frame["timestamp"].to_numpy().astype(np.int64)

    (folder / "sequences").mkdir(parents=True)
    for name, array in arrays.items():
        with write_atomically(folder / "sequences" / f"{name}.npy") as file:
            np.save(file, array)
    write_table(item_table, "item", 1, folder / "items.parquet")
    write_table(user_table, "user", 0, folder / "users.parquet")
    manifest = {
        "format": FORMAT,
        "name": config.name,
        "num_users": len(user_table),
        "num_items": len(item_table),
        "num_interactions": len(items),
        "attributes": item_table.columns[1:],
        "has_timestamps": "timestamps" in arrays,
        "source": {"kind": config.kind, **_options(config)},
        "item_ids_sha256": hash_item_ids(item_table["raw_id"].to_list()),
        "sequences_sha256": hash_arrays(*arrays.values()),
    }
    if comments is not None:
        known = users["raw_id"], user_table["raw_id"], item_table["raw_id"]
        write_comments(folder / COMMENTS, f"{config.name}-comments", comments, *known)
    write_json(folder / "manifest.json", manifest)
    for step, count in events.removed:
        log.info("%s removed %s interactions", step, f"{count:,}")


def _options(config: Preparation) -> dict[str, Any]:
    left_out = {"name", "data_dir", "overwrite"} | (set() if config.raw_text else {"raw_text"})  # as before that option
    options = {key: value for key, value in asdict(config).items() if key not in left_out}
    return {key: value.resolve().name if isinstance(value, Path) else value for key, value in options.items()}
