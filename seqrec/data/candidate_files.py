"""Files of the negatives that a user's held-out item is ranked against. Shapes: U users, K negatives, N items.

`.json`: an object of each user's negatives, all by the ids of the source: {"A1B2": ["B00X", ...], ...}.
`.pkl`: what the published code caches, such as sample_size100-seed98765.pkl: users by their ids, negatives by their
numbers, 1..N.
"""

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.opening import read_json_object
from seqrec.data.dataset import Dataset
from seqrec.data.sources.pickled import load_plain_pickle


def describe_candidates(path: Path) -> tuple[int, str]:
    """Return K, and the file's sha256.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it is no file of negatives.
    """
    lists, digest = _read(path, path.stat().st_mtime_ns if path.is_file() else 0)
    return len(next(iter(lists.values()))), digest


def load_candidates(path: Path, dataset: Dataset) -> NDArray[np.int32]:
    """Return each user's negatives, (U, K) int32 in 1..N; rows of users that the file lacks are 0.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If users or items are not the dataset's, or a user has seen a negative, or one is named twice.
    """
    lists, _ = _read(path, path.stat().st_mtime_ns if path.is_file() else 0)
    users = (
        pl.Series(lists.keys())
        .cast(pl.String)
        .replace_strict(
            dataset.user_table()["raw_id"],
            pl.int_range(dataset.num_users, eager=True),
            default=None,
            return_dtype=pl.Int64,
        )
    )
    if users.null_count():
        stranger = list(lists)[int(users.is_null().arg_max() or 0)]
        raise UserError(f"{path}: user {stranger!r} is not in {dataset.path}: are both from one preparation?")
    named = pl.Series([item for items in lists.values() for item in items])
    items = named
    if named.dtype == pl.String:
        raw_ids = dataset.item_table()["raw_id"]
        numbers = pl.int_range(1, dataset.num_items + 1, eager=True)
        items = named.replace_strict(raw_ids, numbers, default=0, return_dtype=pl.Int64)
    table = items.to_numpy().astype(np.int64).reshape(len(lists), -1)
    if (odd := (table < 1) | (table > dataset.num_items)).any():
        stranger = named[int(odd.ravel().argmax())]
        raise UserError(f"{path}: item {stranger!r} is none of the {dataset.num_items:,} items of {dataset.path}")
    candidates = np.zeros((dataset.num_users, table.shape[1]), dtype=np.int32)
    candidates[users.to_numpy()] = table
    _check(candidates, dataset, path)
    return candidates


@functools.lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> tuple[dict[Any, list[Any]], str]:
    """Return the lists of a file as it was when it `changed`, all of one length, and its sha256."""
    if not path.is_file():
        raise MissingFileError(f"--candidates {path} does not exist: give a .json or .pkl file of users' negatives")
    if path.suffix not in (".json", ".pkl"):
        raise UserError(f"--candidates must end in .json or .pkl, got {path}")
    found = read_json_object(path, "write it again") if path.suffix == ".json" else load_plain_pickle(path)
    kind = str if path.suffix == ".json" else int
    lists = found if isinstance(found, dict) else {}
    whole = all(isinstance(items, list) and set(map(type, items)) == {kind} for items in lists.values())
    if not lists or not whole or len(set(map(len, lists.values()))) > 1:
        raise UserError(
            f"{path}: expected an object that maps each user to a list of items, {kind.__name__}, all of one length"
        )
    with path.open("rb") as file:
        return lists, hashlib.file_digest(file, "sha256").hexdigest()


def _check(candidates: NDArray[np.int32], dataset: Dataset, path: Path) -> None:
    """Refuse negatives that a user has seen, or that are named twice."""
    rows = np.flatnonzero(candidates[:, 0])
    own = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
    seen = own * (dataset.num_items + 1) + np.asarray(dataset.items)
    keys = np.sort(rows[:, None] * (dataset.num_items + 1) + candidates[rows], axis=1)
    for fault, found in (
        ("is an item that the user has", np.isin(keys, seen)),
        ("is named twice for the user", np.diff(keys, axis=1, prepend=-1) == 0),
    ):
        if found.any():
            user, item = divmod(int(keys[found][0]), dataset.num_items + 1)
            who, what = dataset.user_table()["raw_id"][user], dataset.item_table()["raw_id"][item - 1]
            raise UserError(f"{path}: {what!r}, a negative of user {who!r}, {fault}: is the file of {dataset.path}?")
