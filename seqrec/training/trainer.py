"""Training for all families: one Trainer, exact resume, and the best epoch's weights at the end."""

import copy
import logging
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger

from seqrec.basics.errors import MissingFileError
from seqrec.basics.precision import allow_tensor_cores
from seqrec.basics.progress import shows_progress
from seqrec.training.checkpoint_io import AtomicCheckpointIO
from seqrec.training.checkpoints import find_checkpoint, load_state
from seqrec.training.folder import RunFolder, is_first_process
from seqrec.training.module import NextItemModule
from seqrec.training.options import FitConfig, TrainingConfig, is_sharded, writes_files
from seqrec.training.record import RunRecord
from seqrec.training.sharding import make_strategy

log = logging.getLogger(__name__)
Module = TypeVar("Module", bound=NextItemModule)


def build_trainer(
    config: TrainingConfig, folder: Path, record: RunRecord, to_beat: float = -math.inf
) -> lightning.Trainer:
    """Return the Trainer that every family uses, writing into a run folder; see `fit`."""
    monitor = f"valid/{config.best_metric}"
    checkpoints = folder / "checkpoints"
    stopping = EarlyStopping(monitor, patience=config.patience, mode="max", check_on_train_epoch_end=False)
    stopping.best_score = torch.tensor(to_beat)
    callbacks: list[lightning.Callback] = [
        record,
        stopping,
        ModelCheckpoint(
            checkpoints,
            "best",
            monitor=monitor,
            mode="max",
            save_weights_only=True,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        ),
        ModelCheckpoint(checkpoints, "last", enable_version_counter=False, save_on_train_epoch_end=True),
    ]
    return make_trainer(config, folder, callbacks, config.eval_every)


def make_trainer(
    config: FitConfig, folder: Path, callbacks: list[lightning.Callback], eval_every: int = 1
) -> lightning.Trainer:
    """Return a Trainer with some callbacks, a progress bar among them if wanted, which writes into a run folder."""
    allow_tensor_cores()
    show_bar = config.progress_bar and shows_progress()
    if show_bar:
        callbacks = [*callbacks, TQDMProgressBar(refresh_rate=10, leave=False)]
    return lightning.Trainer(
        accelerator=config.accelerator,
        devices=config.placement,
        num_nodes=config.num_nodes,
        strategy=make_strategy(config.strategy),
        precision=config.precision,
        max_epochs=config.num_epochs,
        check_val_every_n_epoch=eval_every,
        accumulate_grad_batches=config.accumulate_grad_batches,
        gradient_clip_val=config.gradient_clip_val,
        callbacks=callbacks,
        plugins=AtomicCheckpointIO() if writes_files(config.strategy) else None,
        logger=TensorBoardLogger(folder, name="logs", version=""),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=show_bar,
        log_every_n_steps=50,
    )


def fit(
    module: Module,
    data: lightning.LightningDataModule,
    config: TrainingConfig,
    folder: Path,
    to_beat: float = -math.inf,
    start: Path | None = None,
) -> tuple[Module, RunRecord]:
    """Train until the validation score stops rising, continuing from `last.ckpt` under --resume.

    Args:
        module: The model; a sharding strategy leaves it sharded.
        data: Its batches.
        config: How to train.
        folder: Where checkpoints and logs go.
        to_beat: A score that an epoch must exceed to count as an improvement.
        start: Another training's `last.ckpt` to continue from.

    Returns:
        A module with the weights of the best epoch, and the record of the training.
    """
    record = RunRecord(folder, config)
    trainer = build_trainer(config, folder, record, to_beat)
    own = find_checkpoint(folder / "checkpoints" / "last.ckpt") if config.resume else None
    if own is None and start is not None and not start.exists():
        raise MissingFileError(f"--ckpt {start} does not exist: give checkpoints/last.ckpt of an earlier run")
    whole = copy.deepcopy(module) if is_sharded(config.strategy) else module
    with _ending_processes(trainer):
        trainer.fit(module, datamodule=data, ckpt_path=own or start, weights_only=True)
    whole.load_state_dict(load_state(folder / "checkpoints" / "best.ckpt"))
    return whole, record


def fit_to_the_end(
    module: lightning.LightningModule, data: lightning.LightningDataModule, config: FitConfig, folder: Path
) -> RunRecord:
    """Train without validation, continuing from `last.ckpt` under --resume; return the record of the training."""
    record = RunRecord(folder, config, "part")
    last = ModelCheckpoint(folder / "checkpoints", "last", enable_version_counter=False, save_on_train_epoch_end=True)
    trainer = make_trainer(config, folder, [record, last])
    own = find_checkpoint(folder / "checkpoints" / "last.ckpt") if config.resume else None
    with _ending_processes(trainer):
        trainer.fit(module, datamodule=data, ckpt_path=own, weights_only=True)
    return record


@contextmanager
def _ending_processes(trainer: lightning.Trainer) -> Iterator[None]:
    """End the further processes of a training if an error or a signal ends the first."""
    try:
        yield
    except BaseException:
        for process in getattr(trainer.strategy.launcher, "procs", []):
            process.terminate()
        raise


def test(module: NextItemModule, data: lightning.LightningDataModule, config: TrainingConfig) -> float:
    """Rank the test targets, leaving metrics and ranks in the module; return the seconds it took."""
    allow_tensor_cores()
    trainer = lightning.Trainer(
        accelerator=config.accelerator,
        devices=config.placement,
        num_nodes=config.num_nodes,
        strategy="ddp" if config.devices * config.num_nodes > 1 else "auto",
        precision=config.precision,
        logger=False,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=config.progress_bar and shows_progress(),
    )
    # After training with several processes, Lightning mistakes a test by one process for one by several.
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    start = time.perf_counter()
    with _ending_processes(trainer):
        trainer.test(module, datamodule=data, verbose=False)
    return time.perf_counter() - start


def complete(run: RunFolder[TrainingConfig], module: NextItemModule, data: lightning.LightningDataModule) -> None:
    """Train, choose the best epoch on validation, test once, and write the results into the run folder."""
    module, record = fit(module, data, run.training, run.folder)
    report(run, module, record, test(module, data, run.training))


def report(run: RunFolder[TrainingConfig], module: NextItemModule, record: RunRecord, test_seconds: float) -> None:
    """Write the results of a tested module into the run folder, and log them."""
    if not is_first_process():
        return
    with torch.no_grad():
        vectors = module.item_vectors()
    results = run.write_results(module, record, test_seconds, vectors.numel() * vectors.element_size())["test"]
    log.info("test: NDCG@10 %.4f, Recall@10 %.4f, MRR %.4f", results["NDCG@10"], results["Recall@10"], results["MRR"])
    log.info("results are in %s", run.folder)
