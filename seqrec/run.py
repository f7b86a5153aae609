"""One run: how it trains, the folder that it writes, and what it must remember over a kill.

`runs/<Family>/<dataset>/<name>/` holds config.json, checkpoints/{best,last}.ckpt, logs/, metrics.json, ranks-test.npy:
each user's rank, -1 without a target, or where a user has several each target's, with users-test.npy saying whose.
"""

import csv
import io
import json
import logging
import math
import os
import resource
import shutil
import sys
import time
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
import tyro
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.utilities import rank_zero_only

from seqrec.checks import require_above, require_at_least, require_at_most
from seqrec.dataset import ROOT, Dataset
from seqrec.errors import UserError
from seqrec.files import hold, plain, write_atomically, write_json
from seqrec.module import NextItemModule, Protocol
from seqrec.names import check_name
from seqrec.sharding import StrategyName

log = logging.getLogger(__name__)

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""Of matrix products; what is added up, normalised and ranked stays float32."""
CONFIG = "config.json"
LOCK = ".lock"
DATA = "data"
"""Key of config.json that is no flag: the hashes of what was read."""
VECTORS = "vectors_sha256"
"""Key of config.json that is no flag, and of metrics.json: the hash of the item vectors that the run starts from."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How long, on what and where to a model trains."""

    num_epochs: Annotated[int, tyro.conf.arg(aliases=["--num_train_epochs"])] = 200
    """At most so many passes over the training users."""
    patience: int = 10
    """Evaluations without a better validation score before training stops."""
    best_metric: str = "NDCG@10"
    """The validation metric that chooses the epoch and stops early."""
    valid_users: int | None = None
    """Validate on so many users, drawn by the seed, where ranking all of them is slow; the test takes all."""
    eval_every: Annotated[int, tyro.conf.arg(aliases=["--verbose"])] = 1
    """Epochs between validations."""
    seed: int = 42
    """Seeds the weights, the batches, dropout and training negatives."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """What to train on."""
    devices: int = 1
    """Processes per machine, one per device."""
    num_nodes: int = 1
    """Machines."""
    strategy: StrategyName = "auto"
    """How several devices share the work, and with fsdp and deepspeed the training's state too."""
    precision: Precision = "32-true"
    """Of the forward and backward pass; scores and metrics are float32 always."""
    gradient_clip_val: float | None = None
    """Largest norm of the gradient; none by default."""
    accumulate_grad_batches: Annotated[int, tyro.conf.arg(aliases=["--gradient_accumulation_steps"])] = 1
    """Batches per optimiser step."""
    dataloader_num_workers: int = 0
    """Processes that make batches beside the training one."""
    runs_dir: Annotated[Path, tyro.conf.arg(aliases=["--output_dir", "--experiment_dir"])] = ROOT / "runs"
    """Where run folders go."""
    run_name: str | None = None
    """Name of the run folder; by default the kind of item vectors and the seed."""
    resume: bool = False
    """Continue an interrupted run of the same configuration; a finished one is left as it is."""
    overwrite: bool = False
    """Delete an earlier run of that name first; in Recformer, replace item vectors of other weights or flags too."""
    progress_bar: bool = True
    """Show one."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "num_epochs", "patience", "eval_every", "valid_users")
        require_at_least(1, self, "devices", "num_nodes", "accumulate_grad_batches")
        require_at_least(0, self, "dataloader_num_workers")
        require_above(0, self, "gradient_clip_val")
        require_at_most(256, self, "dataloader_num_workers")
        if self.eval_every > self.num_epochs:
            raise UserError(
                f"--eval_every {self.eval_every} is more than --num_epochs {self.num_epochs}: "
                "no epoch would be validated, so none could be chosen"
            )
        if self.run_name is not None:
            check_name("--run_name", self.run_name)
        if self.resume and self.overwrite:
            raise UserError("--resume keeps an earlier run and --overwrite deletes it: give one of them")

    def check_machine(self) -> None:
        """Refuse more processes than this machine can run at a time; they would wait for one another.

        Raises:
            UserError: If there are fewer GPUs, or without GPUs fewer cores.
        """
        on_gpu = self.accelerator != "cpu" and torch.cuda.is_available()
        there, what = (torch.cuda.device_count(), "GPUs") if on_gpu else (os.cpu_count() or 1, "cores")
        if self.devices > there:
            raise UserError(f"--devices {self.devices}: this machine has {there} {what}")


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder and what identifies it."""

    family: str
    dataset: Dataset
    init_type: str
    training: TrainingConfig
    protocol: Protocol
    vectors_sha256: str | None = None
    """Of the item vectors that the run starts from; None where there are none."""

    @property
    def name(self) -> str:
        """The folder's name: the group and the seed."""
        return self.training.run_name or f"{self.init_type}-seed{self.training.seed}"

    @property
    def group(self) -> str:
        """What runs that differ in the seed alone have in common."""
        return self.name.removesuffix(f"-seed{self.training.seed}")

    @property
    def folder(self) -> Path:
        """Where everything of the run lies."""
        return self.training.runs_dir / self.family / self.dataset.name / self.name

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing to resume."""
        return self.training.resume and (self.folder / "metrics.json").is_file()

    def open(self, config: Any, *also: Dataset) -> bool:
        """Make the folder ready and say whether there is anything left to do.

        Args:
            config: All flags.
            also: Further data that is read.

        The first process keeps the folder to itself until it ends.

        Raises:
            UserError: If an earlier run lies there and neither --resume nor --overwrite says what to do with it, if
                it was run with other flags than these, on other data or from other item vectors, if something else lies
                there, if another process is at it, or if the metric that chooses the epoch is not measured.
        """
        self.training.check_machine()
        measured = [f"{name}@{k}" for name in ("NDCG", "Recall") for k in self.protocol.metric_ks] + ["MRR", "AUC"]
        if self.training.best_metric not in measured:
            raise UserError(f"--best_metric must be one of {measured}, got {self.training.best_metric!r}")
        read = (self.dataset, *also)
        marks = [(data.name, data.item_ids_sha256, data.sequences_sha256) for data in read]
        settings = plain({**_flat(config), DATA: marks, VECTORS: self.vectors_sha256})
        file = self.folder / CONFIG
        if not is_first_process():
            # The first process made the folder ready, or found it finished, before or while this one started.
            return not self.is_finished
        self._take()
        if file.is_file() and self.training.overwrite:
            self._empty()
        if file.is_file():
            if not self.training.resume:
                raise UserError(
                    f"{self.folder} holds an earlier run: add --resume to continue it, --overwrite to replace it, "
                    "or --run_name NAME to keep both"
                )
            earlier = json.loads(file.read_text(encoding="utf-8"))
            if earlier.get(DATA) != settings[DATA]:
                raise UserError(
                    f"{self.folder} was run on {', '.join(data.name for data in read)} as prepared at that time, which "
                    "has changed since: restore the data, or --overwrite the run"
                )
            if earlier.get(VECTORS, self.vectors_sha256) != self.vectors_sha256:
                raise UserError(
                    f"{self.folder} started from other item vectors `{self.init_type}` (sha256 {earlier[VECTORS]}) "
                    f"than there are now ({self.vectors_sha256}): restore those, or --overwrite the run"
                )
            # Where the data lies does not matter, as it has been compared, nor where the folder itself does.
            passing = {VECTORS, "resume", "overwrite", "progress_bar", "dataloader_num_workers", "runs_dir"}
            passing |= {"dataset", "data_path", "valid_dataset", "valid_path"}

            def differ(flag: str) -> bool:
                return bool(_from_root(earlier.get(flag)) != _from_root(settings.get(flag)))

            changed = {k for k in earlier | settings if k not in passing and differ(k)}
            if changed:
                told = ", ".join(f"{k} was {earlier.get(k)} and is {settings.get(k)}" for k in sorted(changed))
                raise UserError(f"{self.folder} was run with other flags ({told}): use those, or --overwrite")
            if (self.folder / "metrics.json").is_file():
                log.info("%s is finished already", self.folder)
                return False
        write_json(file, settings)
        return True

    def _take(self) -> None:
        """Make the folder and lock it, unless it is something else than a run's."""
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            raise UserError(f"{self.folder} is a link or a file, where a run wants a folder: give another --run_name")
        config = self.folder / CONFIG
        if config.exists():
            is_run = is_run_config(config)
        else:
            is_run = not self.folder.exists() or all(path.name.startswith(".") for path in self.folder.iterdir())
        if not is_run:
            raise UserError(
                f"{self.folder} holds something else than a run and is left alone: give another --run_name; or, if it "
                f"is a run whose {CONFIG} was damaged, delete it yourself"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        hold(
            self.folder / LOCK,
            f"another process is at {self.folder}: wait for it to end, or give this run a --run_name of its own",
        )

    def _empty(self) -> None:
        """Delete an earlier run; a kill meanwhile leaves what is known as one, and not as a finished one."""
        (self.folder / "metrics.json").unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if path.name not in (CONFIG, LOCK):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        (self.folder / CONFIG).unlink()

    def write_results(
        self, module: NextItemModule, record: "RunRecord", test_seconds: float, item_vector_bytes: int
    ) -> dict[str, Any]:
        """Write ranks-test.npy and, last, metrics.json; return what the latter holds."""
        parameters = [p.numel() for p in module.parameters()]
        metrics = {
            "family": self.family,
            "dataset": self.dataset.name,
            "init_type": self.init_type,
            "group": self.group,
            VECTORS: self.vectors_sha256,
            "seed": self.training.seed,
            "protocol": {
                **self.protocol.record,
                "num_items": self.dataset.num_items,
                "sequences_sha256": self.dataset.sequences_sha256,
                "item_ids_sha256": self.dataset.item_ids_sha256,
            },
            "valid": record.best,
            "test": module.results,
            "best_epoch": record.best_epoch,
            "epochs": len(record.history),
            "cost": {
                "train_seconds": record.seconds,
                "test_seconds": test_seconds,
                "peak_memory_bytes": peak_memory(),
                "parameters": sum(parameters),
                "trainable_parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
                "item_vector_bytes": item_vector_bytes,
                "device": torch.cuda.get_device_name() if module.device.type == "cuda" else "cpu",
                "threads": torch.get_num_threads(),
            },
        }
        tables = {"ranks": module.recorder.ranks, "users": module.recorder.users}
        if not self.protocol.several_targets:
            ranks = np.full(self.dataset.num_users, -1, dtype=np.int64)
            ranks[module.recorder.users] = module.recorder.ranks
            tables = {"ranks": ranks}
        for name, table in tables.items():
            with write_atomically(self.folder / f"{name}-test.npy") as file:
                np.save(file, table, allow_pickle=False)
        write_json(self.folder / "metrics.json", metrics)
        return metrics


class RunRecord(pl.Callback):
    """Keeps what a run must remember over a kill: the best epoch, the curve, the time spent. Epochs count from 1."""

    def __init__(self, folder: Path, config: TrainingConfig) -> None:
        self.folder, self.best_metric, self.seed = folder, config.best_metric, config.seed
        self.best: dict[str, float] = {}
        self.best_score = -math.inf
        self.best_epoch: int | None = None
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self._since = 0.0
        self._validated = False

    def state_dict(self) -> dict[str, Any]:
        """Return everything above, as tensors and plain values."""
        return {
            "best": self.best,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of an interrupted run.

        Raises:
            UserError: If an earlier version wrote it.
        """
        if "best_score" not in state_dict:
            raise UserError(f"{self.folder} was begun by a version that counted epochs from 0: --overwrite it")
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self.best_score = state_dict["best_score"]
        self.history, self.seconds = state_dict["history"], state_dict["seconds"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once if the run that is continued was to stop."""
        stopping = trainer.early_stopping_callback
        if isinstance(stopping, EarlyStopping) and stopping.wait_count >= stopping.patience:
            trainer.should_stop = True
        self._since = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed dropout by (seed, epoch), so that an epoch is the same whatever ran before it in this process.

        Each further process of several has a seed of its own: they train on different users.
        """
        rank = (trainer.global_rank,) if trainer.global_rank else ()
        torch.manual_seed(hash((self.seed, trainer.current_epoch, *rank)) % 2**63)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the epoch if it is the best so far."""
        assert isinstance(pl_module, NextItemModule)
        self._validated = True
        # The number, in float32, by which Lightning keeps a checkpoint and stops early.
        score = float(trainer.callback_metrics[f"valid/{self.best_metric}"])
        if score > self.best_score:
            self.best, self.best_score, self.best_epoch = pl_module.results, score, trainer.current_epoch + 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add one row to the curve and say one line."""
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
            log.info("epoch %d: loss %.4f%s, %.1f s", epoch, loss, score, spent)
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
    """Return the most bytes this process has held: on the GPU where it used one, in main memory otherwise."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_first_process() -> bool:
    """Return whether this process has rank 0, also before Lightning has set anything up."""
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]


def is_run_config(file: Path) -> bool:
    """Return whether a config.json is a run's of this project, and not a model's or another program's."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    marks = found.get(DATA) if isinstance(found, dict) else None
    return isinstance(marks, list) and all(isinstance(mark, list) and len(mark) == 3 for mark in marks)


def _from_root(value: Any) -> Any:
    """Return a path in the project as it is from there, so that it is the same when the project has moved."""
    path = str(value.absolute()) if isinstance(value, Path) else value
    return path.removeprefix(f"{ROOT}/") if isinstance(path, str) else path


def from_root(config: Any) -> Any:
    """Return a (nested) config read from config.json, whose paths in the project are relative to it, made absolute."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    nested = {name: from_root(value) for name, value in values.items() if is_dataclass(value)}
    return replace(
        config, **nested, **{name: ROOT / value for name, value in values.items() if isinstance(value, Path)}
    )


def _flat(config: Any) -> dict[str, Any]:
    """Return a nested dataclass as one flat dictionary of its flags, paths in the project relative to it."""
    out: dict[str, Any] = {}
    for key, value in asdict(config).items():
        if isinstance(value, dict):
            out |= {name: _from_root(item) if isinstance(item, Path) else item for name, item in value.items()}
        else:
            out[key] = _from_root(value) if isinstance(value, Path) else value
    return out
