"""Rankings of items by counts: of all users' events, or of a user's own; test and use."""

import logging
from collections.abc import Callable

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import TensorDataset

from Baselines.comments import rank_comments
from Baselines.data import event_ages, order_of_appearance, score_items
from Baselines.model import (
    Events,
    Favourites,
    GivenVectors,
    Latest,
    MeanVector,
    Neighbours,
    OwnHistory,
    SameForAll,
    TextVector,
)
from Baselines.options import DATED, Config
from Baselines.rules import find_rules
from seqrec.basics.errors import UserError
from seqrec.basics.files import write_atomically
from seqrec.basics.progress import progress
from seqrec.data.activity import Activity
from seqrec.data.batches import RowSampler
from seqrec.data.dataset import Dataset, Histories
from seqrec.data.discovery import open_dataset
from seqrec.data.item_users import by_users
from seqrec.data.splits import Split
from seqrec.data.vectors import find_embeddings, load_embeddings
from seqrec.items.similar import by_words, find_nearest
from seqrec.items.words import read_texts
from seqrec.training.batches import BatchModule
from seqrec.training.folder import RunFolder
from seqrec.training.module import NextItemModule, Recommender, TrainedOn
from seqrec.training.record import RunRecord
from seqrec.training.trainer import report, test

log = logging.getLogger(__name__)

RankUnder = Callable[[float | None], None]
HALF_LIVES = tuple(2.0**-power for power in range(1, 15))
"""Shares of the greatest age that rankings choose from."""
MAX_TOKENS = 16384
"""Tokens of a batch in evaluation."""
USERS_PER_BATCH = 4096
"""Of rankings that are the same for all."""
TOKENS_OF_TEXT = 64
"""Of an item's text, where texts are read."""
SCORES_PER_TOKEN = 256
"""Of other rankings: 32 MiB in a batch."""


def run_baseline(config: Config) -> None:
    """Count, test, and write the run folder."""
    dataset = open_dataset(config.dataset, config.data_path)
    if config.comments:
        rank_comments(config, dataset)
        return
    run = RunFolder("Baselines", dataset, config.name, config.training, config.protocol)
    split = config.protocol.hold_out(dataset)
    if not run.open(config):
        return
    ranking, data, scores = count_baseline(config, dataset, split)
    with write_atomically(run.folder / "checkpoints" / "best.ckpt") as file:
        torch.save({"state_dict": ranking.module.state_dict()}, file)
    record = RunRecord(run.folder, config.training)
    record.best = scores
    report(run, ranking.module, record, test(ranking.module, data, config.training))


def count_baseline(config: Config, dataset: Dataset, split: Split) -> tuple[Recommender, BatchModule, dict[str, float]]:
    """Return a ranking that has counted a split's training events, what evaluates it, and its validation metrics."""
    given = None if config.init_type is None else load_embeddings(config.init_type, dataset, config.embedding_dir)
    ranking = make_ranking(config, dataset, 0 if given is None else given.shape[1])
    data = BatchModule(
        dataset,
        split,
        config.protocol,
        TensorDataset(torch.zeros(0)),
        RowSampler(np.zeros(0, dtype=np.int64), batch_size=1, shuffle=False),
        ranking.make_inputs,
        eval_lengths=ranking.count_tokens,
        eval_max_tokens=MAX_TOKENS,
        valid_users=config.valid_users,
    )
    rank_under = count(config, ranking.module, dataset, split.train, given)
    return ranking, data, choose_half_life(config, ranking.module, data, rank_under)


def make_ranking(config: Config, dataset: Dataset, width: int) -> Recommender:
    """Return the ranking that the flags name, before anything is counted; `width` is that of given vectors."""
    num_items = dataset.num_items
    given = num_items, config.protocol.metric_ks
    tokens = -(-(num_items + 1) // SCORES_PER_TOKEN)
    if config.baseline == "latest":
        if dataset.timestamps is None:
            raise UserError(f"--baseline latest: {dataset.path} has no timestamps, only order")
        latest = Latest(*given, Activity(dataset.items, dataset.timestamps))

        def moments_of(histories: Histories, rows: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(dataset.moments(histories.select(rows)))

        return Recommender(latest, moments_of, lambda histories: np.full(len(histories), tokens))
    if config.baseline in ("favourites", "item-knn", "text-knn", "rules"):
        own = Favourites(*given) if config.baseline == "favourites" else Neighbours(*given, config.neighbours)
        return Recommender(own, all_events, lambda histories: np.maximum(histories.lengths, tokens))
    if config.user_as == "text":
        from Baselines.encoders import TextReader  # sentence-transformers: seconds

        assert config.init_type is not None
        path = find_embeddings(config.init_type, dataset, config.embedding_dir)
        texts, most = TextVector(*given, width, TextReader(path, read_texts(dataset))), config.max_his_len

        def latest_events(histories: Histories, rows: NDArray[np.int64]) -> Events:
            return all_events(histories, rows, most)

        return Recommender(texts, latest_events, lambda histories: TOKENS_OF_TEXT * np.minimum(histories.lengths, most))
    if config.baseline == "vectors":
        return Recommender(MeanVector(*given, width), all_events, lambda histories: histories.lengths)
    same = SameForAll(*given)
    return Recommender(same, no_events, lambda histories: np.full(len(histories), MAX_TOKENS // USERS_PER_BATCH))


def count(
    config: Config, module: NextItemModule, dataset: Dataset, train: Histories, given: NDArray[np.float32] | None
) -> RankUnder:
    """Return what lets a module rank by training events under a half-life, a share of the greatest age.

    Args:
        config: The flags.
        module: Of `make_ranking`.
        dataset: With the items.
        train: The training events.
        given: (N+1, D) item vectors, if the module ranks by them.
    """
    if isinstance(module, GivenVectors):
        assert given is not None
        module.know(given)
    if isinstance(module, MeanVector):
        oldest = int(train.lengths.max())
        return lambda share: module.take(np.inf if share is None else share * oldest)
    if isinstance(module, OwnHistory):
        if isinstance(module, Neighbours):
            module.know(*find_neighbours(config, dataset, train))
        counts, longest = train.item_counts(module.num_items), int(train.lengths.max())
        return lambda share: module.take(counts, np.inf if share is None else share * longest)
    if isinstance(module, Latest | TextVector):
        return lambda share: None
    assert isinstance(module, SameForAll)
    if config.baseline == "newest":
        order = order_of_appearance(dataset, train)
        return lambda share: module.take(order)
    items, ages = event_ages(train)
    return lambda share: module.take(score_items(items, ages, len(module.scores) - 1, share))


def find_neighbours(config: Config, dataset: Dataset, train: Histories) -> tuple[Tensor, Tensor]:
    """Return the items that each item speaks for, (N+1, K), and how much."""
    if config.baseline == "rules":
        return find_rules(train, dataset.num_items, config.neighbours)
    by_items = by_words(dataset) if config.baseline == "text-knn" else by_users(train, dataset.num_items)
    return find_nearest(by_items, config.neighbours)


def choose_half_life(
    config: Config, module: NextItemModule, data: BatchModule, rank_under: RankUnder
) -> dict[str, float]:
    """Let the module rank under the half-life that ranks validation targets best, and return how well it does."""
    is_open = config.baseline in DATED and config.half_life is None and config.user_as == "mean"
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    found = {}
    choices: tuple[float | None, ...] = HALF_LIVES if is_open else (config.half_life,)
    for half_life in progress(choices, desc="validation"):
        rank_under(half_life)
        trainer.validate(module, datamodule=data, verbose=False)
        found[half_life] = module.results
    best = max(found, key=lambda half_life: found[half_life][config.best_metric])
    if is_open:
        log.info("half-life: %.4g of the oldest age", best)
    log.info("validation: %s %.4f", config.best_metric, found[best][config.best_metric])
    rank_under(best)
    return found[best]


def no_events(histories: Histories, rows: NDArray[np.int64]) -> Tensor:
    """Return (B,) rows: nothing of a history is read."""
    return torch.from_numpy(rows)


def all_events(histories: Histories, rows: NDArray[np.int64], most: int | None = None) -> Events:
    """Return all events of some histories, or the latest ones of each."""
    items, offsets = histories.gather(rows, most or max(int(histories.lengths[rows].max(initial=1)), 1))
    lengths = np.diff(offsets)
    ages = np.repeat(offsets[1:], lengths) - 1 - np.arange(len(items))
    users = np.repeat(np.arange(len(rows)), lengths)
    return Events(len(rows), *map(torch.from_numpy, (users, items, ages.astype(np.float64))))


def restore_baseline(
    config: Config, dataset: Dataset, state: dict[str, Tensor], trained: TrainedOn | None = None
) -> Recommender:
    """Return a baseline for use.

    Raises:
        UserError: If it is to serve a catalogue other than the one it counted.
    """
    if trained is not None:
        raise UserError("a new item has not occurred yet: a baseline has no score for it")
    if config.comments:
        raise UserError("this run ranks the comments under a video by a rule: give one that ranks items")
    ranking = make_ranking(config, dataset, state["vectors"].shape[1] if "vectors" in state else 0)
    ranking.module.load_state_dict(state)
    return ranking
