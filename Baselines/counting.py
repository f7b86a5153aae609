"""Rankings that are the same for all users: counting, test and use."""

import logging

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import TensorDataset

from Baselines.data import event_ages, score_items
from Baselines.model import SameForAll
from Baselines.options import Config
from seqrec.basics.errors import UserError
from seqrec.basics.files import write_atomically
from seqrec.basics.progress import progress
from seqrec.data.batches import RowSampler
from seqrec.data.dataset import Dataset, Histories
from seqrec.data.discovery import open_dataset
from seqrec.training.batches import BatchModule
from seqrec.training.folder import RunFolder
from seqrec.training.module import Recommender, TrainedOn
from seqrec.training.record import RunRecord
from seqrec.training.trainer import report, test

log = logging.getLogger(__name__)

HALF_LIVES = tuple(2.0**-power for power in range(1, 15))
"""Shares of the longest age that --baseline recency chooses from."""
USERS_PER_BATCH = 4096


def run_baseline(config: Config) -> None:
    """Count, test, and write the run folder."""
    dataset = open_dataset(config.dataset, config.data_path)
    run = RunFolder("Baselines", dataset, config.baseline, config.training, config.protocol)
    split = config.protocol.hold_out(dataset)
    if not run.open(config):
        return
    items, ages = event_ages(split.train)
    data = BatchModule(
        dataset,
        split,
        config.protocol,
        TensorDataset(torch.zeros(0)),
        RowSampler(np.zeros(0, dtype=np.int64), batch_size=1, shuffle=False),
        make_inputs,
        eval_lengths=count_tokens,
        eval_max_tokens=USERS_PER_BATCH,
    )
    module = SameForAll(dataset.num_items, config.protocol.metric_ks)
    half_life, scores = choose_half_life(config, module, data, items, ages)
    module.take(score_items(items, ages, dataset.num_items, half_life))
    with write_atomically(run.folder / "checkpoints" / "best.ckpt") as file:
        torch.save({"state_dict": module.state_dict()}, file)
    record = RunRecord(run.folder, config.training)
    record.best = scores
    report(run, module, record, test(module, data, config.training))


def choose_half_life(
    config: Config, module: SameForAll, data: BatchModule, items: NDArray[np.int64], ages: NDArray[np.float64]
) -> tuple[float | None, dict[str, float]]:
    """Return the half-life under which validation targets rank best, None of popularity, and how well they do."""
    is_open = config.baseline == "recency" and config.half_life is None
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    found = {}
    choices = HALF_LIVES if is_open else (config.half_life,)
    for half_life in progress(choices, desc="validation"):
        module.take(score_items(items, ages, len(module.scores) - 1, half_life))
        trainer.validate(module, datamodule=data, verbose=False)
        found[half_life] = module.results
    best = max(found, key=lambda half_life: found[half_life][config.best_metric])
    if is_open:
        log.info("half-life: %.4g of the oldest age", best)
    log.info("validation: %s %.4f", config.best_metric, found[best][config.best_metric])
    return best, found[best]


def count_tokens(histories: Histories) -> NDArray[np.int64]:
    """Return (n,) ones: a batch of K tokens then has K users."""
    return np.ones(len(histories), dtype=np.int64)


def make_inputs(histories: Histories, rows: NDArray[np.int64]) -> Tensor:
    """Return (B,) rows: nothing of a history is read."""
    return torch.from_numpy(rows)


def restore_baseline(
    config: Config, dataset: Dataset, state: dict[str, Tensor], trained: TrainedOn | None = None
) -> Recommender:
    """Return a baseline for use.

    Raises:
        UserError: If it is to serve a catalogue other than the one it counted.
    """
    if trained is not None:
        raise UserError("a new item has not occurred yet: a baseline has no score for it")
    module = SameForAll(dataset.num_items, config.protocol.metric_ks)
    module.load_state_dict(state)
    return Recommender(module, make_inputs, count_tokens)
