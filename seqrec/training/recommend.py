"""Recommending with a trained model: the best items for histories, as a table, or as a folder of tables in shards.

Shapes: B histories of a batch, k items for each, N items.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec.basics.errors import UserError
from seqrec.basics.files import plain, write_atomically, write_json
from seqrec.basics.opening import read_json_object
from seqrec.basics.progress import progress
from seqrec.data.batches import RowSampler
from seqrec.data.dataset import Dataset, Histories
from seqrec.evaluation.ranking import seen_pairs
from seqrec.training.module import Recommender

MAX_TOKENS = 16384
"""Events, or tokens of their texts, per batch."""
Found = Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]
"""Batch by batch, (B,) rows of the histories, and their (B, k) items and scores, best first."""


def recommend(
    recommender: Recommender,
    histories: Histories,
    top_k: int = 10,
    include_seen: bool = False,
    max_tokens: int = MAX_TOKENS,
    device: str = "cpu",
    hidden: Tensor | None = None,
) -> Found:
    """Yield, batch by batch, rows of the histories and their (B, k) items and scores, best first.

    Args:
        recommender: The model.
        histories: Of those to recommend to.
        top_k: k.
        include_seen: Whether items of the history are recommended, too.
        max_tokens: Events, or tokens of their texts, per batch.
        device: Where the model runs.
        hidden: (N+1,) bool, whether an item is recommended to nobody.
    """
    if hidden is not None:
        hidden = hidden.to(device)
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
            items, scores = module.best(inputs, catalogue, top_k, seen, hidden)
            yield rows, items.cpu().numpy(), scores.cpu().numpy()


def tabulate(
    dataset: Dataset,
    names: list[str],
    found: Found,
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


def write_shards(
    folder: Path,
    dataset: Dataset,
    names: list[str],
    histories: Histories,
    shard_users: int,
    settings: dict[str, Any],
    ask: Callable[[Histories], Found],
    share: tuple[int, int] = (0, 1),
) -> int:
    """Write the recommendations of so many users at a time, and return how many shards were there already.

    A shard is whole or absent; the same command goes on with those that are absent.

    Args:
        folder: Of part-00000.parquet, part-00001.parquet, ...
        dataset: Whose items are recommended.
        names: Of the users.
        histories: Of these.
        shard_users: Users of a shard.
        settings: What decides the recommendations; a folder of other ones is refused.
        ask: Recommends to histories.
        share: Number of this process, and of all that share the shards of this folder.

    Raises:
        UserError: If the folder holds something else.
    """
    manifest, settings = folder / "manifest.json", plain(settings | {"shard_users": shard_users, "users": len(names)})
    if folder.exists() and any(folder.iterdir()):
        there = read_json_object(manifest, "give another --output") if manifest.is_file() else None
        if there != settings:
            raise UserError(f"--output {folder} holds something else than a part of this: give another folder")
    write_json(manifest, settings)
    starts, done = list(enumerate(range(0, len(names), shard_users)))[share[0] :: share[1]], 0
    for number, start in progress(starts, desc="writing shards", unit="shard"):
        path = folder / f"part-{number:05d}.parquet"
        if path.is_file():
            done += 1
            continue
        rows = np.arange(start, min(start + shard_users, len(names)))
        table = tabulate(dataset, names[start : start + shard_users], ask(histories.select(rows)))
        with write_atomically(path) as file:
            table.write_parquet(file)
    return done
