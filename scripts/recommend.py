"""Recommend with a trained run: for users of its dataset, or for a history given on the command line.

python scripts/recommend.py runs/SASRec/demo/finetune-seed42 --users U000007 U000012
python scripts/recommend.py runs/SASRec/demo/finetune-seed42 --history D000003 D000090
python scripts/recommend.py runs/SASRec/demo/finetune-seed42 --output recommendations.parquet
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
import tyro
from numpy.typing import NDArray

from seqrec.basics.checks import require_at_least, require_device
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.files import write_atomically
from seqrec.basics.progress import progress
from seqrec.data.batches import RowSampler
from seqrec.data.dataset import Dataset, Histories
from seqrec.evaluation.ranking import seen_pairs, top_items
from seqrec.training.module import Recommender
from seqrec.training.restore import load_run

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


SHOWN_USERS = 20
"""More than these go to a file."""


@dataclass(frozen=True, slots=True)
class Config:
    """Whom to recommend what."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    users: tuple[str, ...] = ()
    """Users by the ids of the source; all if not given."""
    history: tuple[str, ...] = ()
    """Instead of a user: items by the ids of the source, the oldest first."""
    top_k: int = 10
    """Items for each."""
    include_seen: bool = False
    """Recommend what the history has, too."""
    output: Path | None = None
    """A .parquet or .csv file instead of the screen; needed for many users."""
    data_path: Path | None = None
    """Folder of the prepared dataset, if it has moved since the run."""
    catalogue: Path | None = None
    """Folder of another prepared dataset to serve, with items that are new, by their texts alone."""
    max_tokens: int = 16384
    """How much of histories is read in one batch."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """What to compute on."""

    def __post_init__(self) -> None:
        if self.users and self.history:
            raise UserError("give --users or a --history, not both")
        require_at_least(1, self, "top_k", "max_tokens")
        require_device(self.device)
        if self.output is not None and self.output.suffix not in (".parquet", ".csv"):
            raise UserError(f"--output must end in .parquet or .csv, got {self.output}")


FILTERS = ("on_missing_text", "where", "min_rating", "min_sc", "min_uc", "k_core", "sample_users", "max_items_per_user")
"""Options of scripts/prepare.py that leave users or items out."""


def unknown_id(dataset: Dataset, kind: str, raw_id: str, flag: str) -> str:
    """Return what to say of an id that a dataset does not have, the filters that may have left it out among it."""
    source = dataset.manifest.get("source", {})
    used = [f"--{name} {source[name]}" for name in FILTERS if source.get(name) not in (None, 0, "", "error", "item_id")]
    told = f"; preparation left out what {' and '.join(used)} did not keep" if used else ""
    return f"{dataset.name} has no {kind} {raw_id!r}: {flag} takes the ids of the source{told}"


def choose_histories(config: Config, dataset: Dataset) -> tuple[list[str], Histories]:
    """Return names and whole histories of those to recommend to.

    Raises:
        UserError: If a user or an item is unknown.
    """
    if config.history:
        number = dict(zip(dataset.item_table()["raw_id"], range(1, dataset.num_items + 1), strict=True))
        if unknown := [item for item in config.history if item not in number]:
            raise UserError(unknown_id(dataset, "item", unknown[0], "--history"))
        items = np.array([number[item] for item in config.history], dtype=np.int32)
        return ["history"], Histories(items, np.zeros(1, dtype=np.int64), np.zeros(1, np.int64), np.array([len(items)]))
    names = dataset.user_table()["raw_id"].to_list()
    histories = dataset.whole_histories()
    if not config.users:
        return names, histories
    row = dict(zip(names, range(len(names)), strict=True))
    if unknown := [user for user in config.users if user not in row]:
        raise UserError(unknown_id(dataset, "user", unknown[0], "--users"))
    return list(config.users), histories.select(np.array([row[user] for user in config.users]))


def recommend(
    recommender: Recommender, histories: Histories, top_k: int, include_seen: bool, max_tokens: int, device: str
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Yield, batch by batch, rows of the histories and their (B, k) items and scores, best first."""
    module = recommender.module.to(device)
    batches = RowSampler(recommender.count_tokens(histories), max_tokens=max_tokens, shuffle=False).batches()
    with torch.inference_mode():
        catalogue = module.item_vectors().float()
        for rows in progress(batches, desc="recommending", unit="batch"):
            inputs = module.transfer_batch_to_device(recommender.make_inputs(histories, rows), torch.device(device), 0)
            users = module.user_vectors(inputs).float()
            seen = None
            if not include_seen:
                pairs = seen_pairs(histories, rows)
                seen = pairs[0].to(device), pairs[1].to(device)
            items, scores = top_items(users, catalogue, top_k, seen)
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


def main(config: Config) -> None:
    """Print the recommendations or write them."""
    dataset, recommender = load_run(config.run, config.data_path, config.catalogue)
    names, histories = choose_histories(config, dataset)
    if config.output is None and len(names) > SHOWN_USERS:
        raise UserError(f"{len(names)} users are too many for the screen: give --output FILE, or some --users")
    found = recommend(recommender, histories, config.top_k, config.include_seen, config.max_tokens, config.device)
    table = tabulate(dataset, names, found)
    if config.output is not None:
        with write_atomically(config.output) as file:
            table.write_parquet(file) if config.output.suffix == ".parquet" else table.write_csv(file)
        print(f"{len(table)} recommendations for {len(names)} users: {config.output}")
        return
    for (user,), rows in table.group_by("user", maintain_order=True):
        print(user)
        for _, rank, item, score, *text in rows.iter_rows():
            print(f"  {rank:3d}  {score:9.4f}  {item}  {(text[0] if text else item)[:80]}")


if __name__ == "__main__":
    run_command(main, Config)
