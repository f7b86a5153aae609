"""Who to recommend to, and what not to recommend: from the command line and from files. Shapes: N items."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.opening import read_parquet
from seqrec.data.dataset import Dataset, Histories

log = logging.getLogger(__name__)
FILTERS = ("on_missing_text", "where", "min_rating", "min_sc", "min_uc", "k_core", "sample_users", "max_items_per_user")
"""Options of scripts/prepare.py that leave users or items out."""
NAMED = 5
"""Greatest number of items that a message names."""


def unknown_id(dataset: Dataset, kind: str, raw_id: str, flag: str) -> str:
    """Return what to say of an id that a dataset does not have, the filters that may have left it out among it."""
    source = dataset.manifest.get("source", {})
    used = [f"--{name} {source[name]}" for name in FILTERS if source.get(name) not in (None, 0, "", "error", "item_id")]
    told = f"; preparation left out what {' and '.join(used)} did not keep" if used else ""
    return f"{dataset.name} has no {kind} {raw_id!r}: {flag} takes the ids of the source{told}"


def find_items(dataset: Dataset, names: Sequence[str], flag: str = "--history") -> NDArray[np.int32]:
    """Return the items that are named by their ids or, where that is none, by their titles in full, in any case.

    Raises:
        UserError: If one is unknown, or several items have the title.
    """
    table = dataset.item_table()
    number = dict(zip(table["raw_id"], range(1, dataset.num_items + 1), strict=True))
    if all(name in number for name in names):
        return np.array([number[name] for name in names], dtype=np.int32)
    titles = table[dataset.attributes[0]].fill_null("").str.to_lowercase() if dataset.attributes else None
    return np.array([number.get(name) or _by_title(dataset, titles, name, flag) for name in names], dtype=np.int32)


def _by_title(dataset: Dataset, titles: pl.Series | None, name: str, flag: str) -> int:
    unknown = unknown_id(dataset, "item", name, flag)
    if titles is None:
        raise UserError(unknown)
    rows = (titles == name.lower()).arg_true()
    if len(rows) == 1:
        return int(rows[0]) + 1
    ids = dataset.item_table()["raw_id"]
    if len(rows):
        raise UserError(f"{len(rows)} items have the title {name!r}: name one by its id, such as {ids[int(rows[0])]!r}")
    like = titles.str.contains(name.lower(), literal=True).arg_true()[:NAMED].to_list()
    texts = dataset.item_table()[dataset.attributes[0]]
    near = f"; its name is part of {', '.join(f'{texts[row]!r} ({ids[row]})' for row in like)}" if like else ""
    raise UserError(f"{unknown}, or a title in full{near}")


def choose_histories(
    dataset: Dataset, users: Sequence[str] = (), history: Sequence[str] = ()
) -> tuple[list[str], Histories]:
    """Return names and whole histories of those to recommend to: some users, or one history of items, or all users.

    Raises:
        UserError: If a user or an item is unknown.
    """
    if history:
        items = find_items(dataset, history)
        return ["history"], Histories(items, np.zeros(1, dtype=np.int64), np.zeros(1, np.int64), np.array([len(items)]))
    names = dataset.user_table()["raw_id"].to_list()
    histories = dataset.whole_histories()
    if not users:
        return names, histories
    row = dict(zip(names, range(len(names)), strict=True))
    if unknown := [user for user in users if user not in row]:
        raise UserError(unknown_id(dataset, "user", unknown[0], "--users"))
    return list(users), histories.select(np.array([row[user] for user in users]))


def read_histories(path: Path, dataset: Dataset) -> tuple[list[str], Histories]:
    """Return names and histories of a Parquet file: `user`, and `history`, a list of items' ids, the oldest first.

    Items that the dataset does not have are left out, and so is who has no other; the log says how many.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it has other columns, or nobody with a known item.
    """
    table = read_parquet(path, "give a Parquet file with the columns user and history")
    if not {"user", "history"} <= set(table.columns) or not isinstance(table.schema["history"], pl.List):
        raise UserError(
            f"{path} has the columns {', '.join(table.columns)}, expected user, and history as lists of ids"
        )
    known = dataset.item_table().select(history="raw_id", item="item")
    events = (
        table.select(pl.col("user").cast(pl.String), pl.col("history").cast(pl.List(pl.String)))
        .with_row_index("row")
        .explode("history")
        .join(known, on="history", how="left", maintain_order="left")
    )
    lost = events.filter(pl.col("item").is_null() & pl.col("history").is_not_null()).height
    kept = events.drop_nulls("item")
    if not len(kept):
        raise UserError(f"{path} has nobody with an item of {dataset.name}: a history holds ids of the source")
    users = kept.group_by("row", maintain_order=True).agg(pl.col("user").first(), pl.len())
    if lost or len(users) < len(table):
        absent = f"{lost:,} events with items that {dataset.name} does not have"
        log.info("%s: left out are %s, and %s users without others", path, absent, f"{len(table) - len(users):,}")
    ends = np.cumsum(users["len"].to_numpy().astype(np.int64))
    starts = np.concatenate([[0], ends[:-1]])
    histories = Histories(kept["item"].to_numpy().astype(np.int32), np.arange(len(users)), starts, ends)
    return users["user"].to_list(), histories


def read_ids(path: Path) -> list[str]:
    """Return the ids of a file: of a .parquet its column `item`, of another its lines.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it cannot be read so.
    """
    if path.suffix == ".parquet":
        table = read_parquet(path, "give a file of ids")
        if "item" not in table.columns:
            raise UserError(f"{path} has the columns {', '.join(table.columns)}, expected item")
        return [str(raw_id) for raw_id in table["item"].drop_nulls().to_list()]
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist: give a file of ids, one on each line")
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8: give a file of ids, one on each line") from error


def hide_items(dataset: Dataset, block: Path | None, allow: Path | None) -> Tensor | None:
    """Return (N+1,) bool, whether an item is recommended to nobody; None if there is no file.

    Ids that the dataset does not have are counted in the log.

    Raises:
        UserError: If nothing is left.
    """
    if block is None and allow is None:
        return None
    number = dict(zip(dataset.item_table()["raw_id"], range(1, dataset.num_items + 1), strict=True))
    hidden = torch.zeros(dataset.num_items + 1, dtype=torch.bool)
    for path, hides in ((allow, False), (block, True)):
        if path is None:
            continue
        ids = read_ids(path)
        rows = [number[raw_id] for raw_id in ids if raw_id in number]
        if len(rows) < len(ids):
            log.info(
                "%s: %s of %s ids are none of %s", path, f"{len(ids) - len(rows):,}", f"{len(ids):,}", dataset.name
            )
        if not hides:
            hidden[:] = True
        hidden[rows] = hides
    if bool(hidden[1:].all()):
        raise UserError("--allow and --block leave no item to recommend")
    return hidden
