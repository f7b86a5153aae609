"""Recommending with a trained model: the best items for users of a dataset, or for a history of items."""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.basics.progress import progress
from seqrec.data.batches import RowSampler
from seqrec.data.dataset import Dataset, Histories
from seqrec.evaluation.ranking import seen_pairs
from seqrec.training.module import Recommender

MAX_TOKENS = 16384
"""Events, or tokens of their texts, per batch."""
FILTERS = ("on_missing_text", "where", "min_rating", "min_sc", "min_uc", "k_core", "sample_users", "max_items_per_user")
"""Options of scripts/prepare.py that leave users or items out."""


def unknown_id(dataset: Dataset, kind: str, raw_id: str, flag: str) -> str:
    """Return what to say of an id that a dataset does not have, the filters that may have left it out among it."""
    source = dataset.manifest.get("source", {})
    used = [f"--{name} {source[name]}" for name in FILTERS if source.get(name) not in (None, 0, "", "error", "item_id")]
    told = f"; preparation left out what {' and '.join(used)} did not keep" if used else ""
    return f"{dataset.name} has no {kind} {raw_id!r}: {flag} takes the ids of the source{told}"


def choose_histories(
    dataset: Dataset, users: Sequence[str] = (), history: Sequence[str] = ()
) -> tuple[list[str], Histories]:
    """Return names and whole histories of those to recommend to: some users, or one history of items, or all users.

    Raises:
        UserError: If a user or an item is unknown.
    """
    if history:
        number = dict(zip(dataset.item_table()["raw_id"], range(1, dataset.num_items + 1), strict=True))
        if unknown := [item for item in history if item not in number]:
            raise UserError(unknown_id(dataset, "item", unknown[0], "--history"))
        items = np.array([number[item] for item in history], dtype=np.int32)
        return ["history"], Histories(items, np.zeros(1, dtype=np.int64), np.zeros(1, np.int64), np.array([len(items)]))
    names = dataset.user_table()["raw_id"].to_list()
    histories = dataset.whole_histories()
    if not users:
        return names, histories
    row = dict(zip(names, range(len(names)), strict=True))
    if unknown := [user for user in users if user not in row]:
        raise UserError(unknown_id(dataset, "user", unknown[0], "--users"))
    return list(users), histories.select(np.array([row[user] for user in users]))


def recommend(
    recommender: Recommender,
    histories: Histories,
    top_k: int = 10,
    include_seen: bool = False,
    max_tokens: int = MAX_TOKENS,
    device: str = "cpu",
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Yield, batch by batch, rows of the histories and their (B, k) items and scores, best first."""
    module = recommender.module.to(device)
    batches = RowSampler(recommender.count_tokens(histories), max_tokens=max_tokens, shuffle=False).batches()
    with torch.inference_mode():
        catalogue = module.item_vectors().float()
        for rows in progress(batches, desc="recommending", unit="batch"):
            inputs = module.transfer_batch_to_device(recommender.make_inputs(histories, rows), torch.device(device), 0)
            seen = None
            if not include_seen:
                pairs = seen_pairs(histories, rows)
                seen = pairs[0].to(device), pairs[1].to(device)
            items, scores = module.best(inputs, catalogue, top_k, seen)
            yield rows, items.cpu().numpy(), scores.cpu().numpy()


def tabulate(
    dataset: Dataset,
    names: list[str],
    found: Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]],
) -> pl.DataFrame:
    """Return one row per recommendation: user, rank from 1, item, score, and the item's first text attribute, if any.

    Users are in the order given.
    """
    order, items, scores = (np.concatenate(part) for part in zip(*found, strict=True))
    place = np.argsort(order, kind="stable")
    items, scores = items[place], scores[place]
    rank = np.broadcast_to(np.arange(1, items.shape[1] + 1), items.shape)
    user = np.broadcast_to(np.arange(len(items))[:, None], items.shape)
    there = items > 0
    known = dataset.item_table()
    number = pl.Series(items[there] - 1)
    table = pl.DataFrame(
        {
            "user": pl.Series(names).gather(user[there]),
            "rank": rank[there].astype(np.int32),
            "item": known["raw_id"].gather(number),
            "score": scores[there],
        }
    )
    if not dataset.attributes:
        return table
    name = dataset.attributes[0]
    text = known[name].gather(number)
    return table.with_columns(text.alias(name if name not in table.columns else f"item_{name}"))
