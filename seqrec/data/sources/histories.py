"""Users and lists of their items, oldest first: JSON, or lists in the cells of a table.

JSON is `{user: [item, ...]}`. A table has a row per user, or several, with a column of lists: Parquet's own, or texts
such as `[1, 2, 3]`, `["a", "b"]` or `1 2 3`. A second column may hold the item after the list (`--target_column`), as
files of training examples do. Several rows of a user must fit together: without a target each list is a beginning of
the user's longest; with one, each row's list is the end of what the user's rows before it in the file make together.
Letter: R rows.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.data.preparation import RawData
from seqrec.data.sources.cells import is_id, plain_ids, split_lists
from seqrec.data.sources.json_text import read_json
from seqrec.data.sources.reading import existing, place
from seqrec.data.sources.tables import LINE, require_columns
from seqrec.data.sources.tabular import Tabular, ending, scan_any

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFiles(Tabular):
    """Users and lists of their items, as JSON or in a table's cells."""

    kind: ClassVar[str] = "histories"

    input: Path
    """{user: [item, ...]} as .json, or a table with a column of lists as .csv, .tsv (either .gz too) or .parquet."""
    user_column: str = "user_id"
    """Column of the user."""
    history_column: str = "history"
    """Column of the lists of items, oldest first."""
    target_column: str | None = None
    """Column of the item that follows the list."""

    def read(self, scratch: Path) -> RawData:
        """Return the histories' items, user by user, and the items' text."""
        path = existing(self.input, "--input")
        user, history, target = self.user_column, self.history_column, self.target_column
        if ending(path) == ".json":
            frame = _json_histories(read_json(path, "--input"), path, user, history)
        else:
            frame = scan_any(path, scratch, self.header)
        require_columns(frame, [user, history, *([target] if target else [])], path)
        frame = plain_ids(self.choose_rows(frame, path, [user, *([target] if target else [])]), user, str(path))
        rows = _lists(frame, user, history, target, path)
        events = _whole_histories(rows, path) if target is None else _chains(rows, path)
        return RawData(plain_ids(events.lazy(), "item", str(path)), self.read_item_text(scratch), origin=str(path))


def _json_histories(content: Any, path: Path, user: str, history: str) -> pl.LazyFrame:
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected {{user: [item, ...]}}, got {content!r:.80}")
    for key, items in content.items():
        if not isinstance(items, list) or not all(type(item) in (str, int, float) for item in items):
            raise UserError(f"{path}: user {key!r} must have a list of item ids, got {items!r:.80}")
    lists = [[str(item) for item in items] for items in content.values()]
    return pl.LazyFrame(
        {user: list(content), history: lists}, schema={user: pl.String, history: pl.List(pl.String)}
    ).with_row_index(LINE, offset=1)


def _lists(frame: pl.LazyFrame, user: str, history: str, target: str | None, path: Path) -> pl.DataFrame:
    """Return user, LINE and the list of items of each row, its target at the end, the rows of a user together.

    Raises:
        UserError: If a row has no user, no target, no list, or a list with something missing in it.
    """
    kind = frame.collect_schema()[history]
    if isinstance(kind, pl.List | pl.Array) and is_id(kind.inner):  # type: ignore[arg-type]
        items = pl.col(history).cast(pl.List(pl.String)).fill_null([])
    elif kind == pl.String:
        items = split_lists(pl.col(history))
    else:
        raise UserError(
            f"{path}: {history!r} is a column of {kind}, expected lists of item ids, or texts such as [1, 2]"
        )
    if target is not None:
        frame = plain_ids(frame, target, str(path))
        items = pl.concat_list(items, pl.col(target).cast(pl.String))
    rows = frame.select(pl.col(user).cast(pl.String).alias("user"), LINE, items=items).collect(engine="streaming")
    gap = pl.element().is_null() | pl.element().str.strip_chars().is_in(["", "...", "None", "nan", "NaN"])
    faulty = pl.col("user").is_null() | (pl.col("user") == "") | pl.col("items").list.eval(gap).list.any()
    odd = rows.filter(faulty).head(1)
    if not odd.is_empty():
        seen = f"user {odd['user'][0]!r} and items {odd['items'][0].to_list()}"
        raise UserError(f"{place(path, odd[LINE][0])}: an id is missing in {seen[:160]}")
    filled = rows.filter(pl.col("items").list.len() > 0)
    if len(filled) < len(rows):
        log.info("%s: %s of %s lists are empty", path, f"{len(rows) - len(filled):,}", f"{len(rows):,}")
    return filled.sort(pl.col(LINE).min().over("user"), LINE, maintain_order=True)


def _whole_histories(rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Return user and item of each user's longest row.

    Raises:
        UserError: If another row of the user is no beginning of it.
    """
    items, offsets = _flat(rows)
    longest = rows.with_row_index("row").select(
        pl.col("row").sort_by(pl.col("items").list.len(), descending=True, maintain_order=True).first().over("user")
    )
    best = longest.to_series().to_numpy()
    codes = items.cast(pl.Categorical).to_physical().to_numpy()
    _check(rows, codes, offsets, codes, offsets[best], path, "is no beginning of the user's longest list")
    return rows[np.unique(best)].select("user", item="items").explode("item")


def _chains(rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Return user and item of what each user's rows make together: the first one whole, then each one's target.

    Raises:
        UserError: If the list of a row is not the end of what the rows before it make.
    """
    items, offsets = _flat(rows)
    user = rows["user"].rle_id().to_numpy().astype(np.int64)  # (R,)
    begins = np.diff(user, prepend=-1) > 0
    kept = np.repeat(begins, np.diff(offsets))
    kept[offsets[1:] - 1] = True
    ends = np.cumsum(kept)[offsets[1:] - 1]  # (R,) where a row's target comes to stand, plus one
    codes = items.cast(pl.Categorical).to_physical().to_numpy()
    starts: NDArray[np.int64] = ends - np.diff(offsets)  # (R,)
    first = np.flatnonzero(begins)[user]  # (R,) the first row of a row's user, before which nothing is the user's
    starts[starts < starts[first]] = -1
    words = "does not end what the user's rows before it make together: are rows missing or out of order?"
    _check(rows, codes, offsets, codes[kept], starts, path, words)
    owner = rows["user"].gather(np.repeat(np.arange(len(rows)), np.diff(offsets))[kept])
    return pl.DataFrame({"user": owner, "item": items.filter(pl.Series(values=kept))})


def _flat(rows: pl.DataFrame) -> tuple[pl.Series, NDArray[np.int64]]:
    """Return the items of all rows, one after another, and (R+1,) offsets into them."""
    lengths = rows["items"].list.len().to_numpy()
    return rows["items"].explode(), np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def _check(
    rows: pl.DataFrame,
    codes: NDArray[np.uint32],
    offsets: NDArray[np.int64],
    whole: NDArray[np.uint32],
    starts: NDArray[np.int64],
    path: Path,
    fault: str,
) -> None:
    """Compare each row's items, codes[offsets[r]:offsets[r + 1]], with as many of `whole` from starts[r] on."""
    lengths = np.diff(offsets)
    places = np.arange(len(codes)) + np.repeat(starts - offsets[:-1], lengths)
    wrong = np.repeat(starts < 0, lengths) | (whole[np.clip(places, 0, len(whole) - 1)] != codes)
    if wrong.any():
        row = rows.row(int(np.searchsorted(offsets, int(wrong.argmax()), side="right")) - 1, named=True)
        raise UserError(f"{place(path, row[LINE])}: the list of user {row['user']!r} {fault} {str(row['items'])[:120]}")
