"""The record of a training that survives a kill: best epoch, learning curve, time spent."""

import csv
import io
import logging
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import EarlyStopping

from seqrec.basics.errors import UserError
from seqrec.basics.files import write_atomically
from seqrec.training.module import NextItemModule
from seqrec.training.options import FitConfig, TrainingConfig

log = logging.getLogger(__name__)


class RunRecord(lightning.Callback):
    """Records the best epoch, the learning curve and the time spent, also over a kill. Epochs count from 1."""

    def __init__(self, folder: Path, config: FitConfig, unit: str = "epoch") -> None:
        """Take the run's folder and flags, and what the Trainer's epochs are called."""
        self.unit = unit
        self.folder, self.seed = folder, config.seed
        self.best_metric = config.best_metric if isinstance(config, TrainingConfig) else None
        self.best: dict[str, float] = {}
        self.best_score = -math.inf
        self.best_epoch: int | None = None
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self._since = 0.0
        self._validated = False

    def state_dict(self) -> dict[str, Any]:
        """Return the record as tensors and plain values."""
        return {
            "best": self.best,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the record of an interrupted run.

        Raises:
            UserError: If an earlier version wrote it.
        """
        if "best_score" not in state_dict:
            raise UserError(f"{self.folder} was begun by a version that counted epochs from 0: --overwrite it")
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self.best_score = state_dict["best_score"]
        self.history, self.seconds = state_dict["history"], state_dict["seconds"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop at once if the resumed run had reached its end."""
        stopping = trainer.early_stopping_callback
        if isinstance(stopping, EarlyStopping) and stopping.wait_count >= stopping.patience:
            trainer.should_stop = True
        self._since = time.perf_counter()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Seed dropout by (seed, epoch), so that an epoch does not depend on what ran before it in this process.

        Further processes have other seeds: they train on different users.
        """
        rank = (trainer.global_rank,) if trainer.global_rank else ()
        torch.manual_seed(hash((self.seed, trainer.current_epoch, *rank)) % 2**63)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Record the epoch if it is the best so far."""
        assert isinstance(pl_module, NextItemModule)
        self._validated = True
        # The float32 score by which Lightning keeps a checkpoint and stops early.
        score = float(trainer.callback_metrics[f"valid/{self.best_metric}"])
        if score > self.best_score:
            self.best, self.best_score, self.best_epoch = pl_module.results, score, trainer.current_epoch + 1

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add a row to the learning curve and log a line."""
        now = time.perf_counter()
        spent, self._since = now - self._since, now
        self.seconds += spent
        epoch = trainer.current_epoch + 1
        row = {"epoch": float(epoch), "seconds": spent}
        # Lightning keeps the metrics of the last validation, which may be an earlier epoch's.
        row |= {k: float(v) for k, v in trainer.callback_metrics.items() if self._validated or k.startswith("train/")}
        self.history.append(row)
        if trainer.is_global_zero:
            self._write_curve()
            score = ""
            if self._validated:
                score = f", validation {self.best_metric} {row[f'valid/{self.best_metric}']:.4f}"
                score += " (best so far)" if self.best_epoch == epoch else ""
            loss = row.get("train/loss", float("nan"))
            log.info("%s %d: loss %.4f%s, %.1f s", self.unit, epoch, loss, score, spent)
        self._validated = False

    def _write_curve(self) -> None:
        columns = sorted({key for row in self.history for key in row})
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        with write_atomically(self.folder / "logs" / "metrics.csv") as file:
            file.write(text.getvalue().encode())


def peak_memory() -> int:
    """Return this process's peak memory in bytes: of the GPU if it used one, else of main memory."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
