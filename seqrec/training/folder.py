"""The folder of a run: what it holds, and how runs are resumed or refused.

`runs/<Family>/<dataset>/<name>/` holds config.json, checkpoints/{best,last}.ckpt, logs/, metrics.json, ranks-test.npy:
each user's rank, -1 without a target. Where all items are ranked, ranks-other.npy holds the ranks with what users have
had left out or, of a run with --filter_seen, with that among the candidates. If users have several targets, these files
hold each target's rank, and users-test.npy its user.
"""

import json
import logging
import shutil
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_only

from seqrec.basics.errors import UserError
from seqrec.basics.files import hold, plain, write_atomically, write_json
from seqrec.basics.settings import DATA, FORM, NO_FLAGS, VECTORS, VERSION, complete, flatten, relative_to_root
from seqrec.basics.version import __version__
from seqrec.data.dataset import Dataset
from seqrec.data.protocol import EvaluationProtocol
from seqrec.evaluation.metrics import OTHER_RANKS, RANKS, USERS
from seqrec.training.module import NextItemModule
from seqrec.training.options import FitConfig, TrainingConfig
from seqrec.training.record import RunRecord, peak_memory

log = logging.getLogger(__name__)
Fit = TypeVar("Fit", bound=FitConfig)
CONFIG = "config.json"
LOCK = ".lock"
LIBRARIES = ("torch", "pytorch-lightning", "numpy")
"""Libraries whose versions metrics.json records."""


@dataclass(frozen=True, slots=True)
class RunFolder(Generic[Fit]):
    """One run folder and what identifies it."""

    family: str
    dataset: Dataset
    init_type: str
    training: Fit
    protocol: EvaluationProtocol
    vectors_sha256: str | None = None
    """sha256 of the item vectors that the run starts from; None without any."""
    result: str = "metrics.json"
    """File that is written last."""
    drawn: dict[str, int] = field(default_factory=dict)
    """Where a sample of the test's users is tested: drawn_users, and the draw_seed."""

    @property
    def name(self) -> str:
        """The folder's name: the group and the seed."""
        return self.training.run_name or f"{self.init_type}-seed{self.training.seed}"

    @property
    def group(self) -> str:
        """Name of the runs that differ only in the seed."""
        return self.name.removesuffix(f"-seed{self.training.seed}")

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.training.runs_dir / self.family / self.dataset.name / self.name

    @property
    def is_finished(self) -> bool:
        """Whether the run is finished."""
        return self.training.resume and (self.folder / self.result).is_file()

    def open(self, config: Any, *also: Dataset) -> bool:
        """Prepare the folder; return whether the run is still to be done.

        Args:
            config: All flags.
            also: Further datasets that are read.

        The first process locks the folder until it ends.

        Raises:
            UserError: If an earlier run lies there and neither --resume nor --overwrite says what to do with it, if
                it was run with other flags than these, on other data or from other item vectors, if something else lies
                there, if another process is at it, or if the metric that chooses the epoch is not measured.
        """
        self.training.check_machine()
        measured = [f"{name}@{k}" for name in ("NDCG", "Recall") for k in self.protocol.metric_ks] + ["MRR", "AUC"]
        chosen_by = self.training.best_metric if isinstance(self.training, TrainingConfig) else measured[0]
        if chosen_by not in measured:
            raise UserError(f"--best_metric must be one of {measured}, got {chosen_by!r}")
        read = (self.dataset, *also)
        marks = [(data.name, data.item_ids_sha256, data.sequences_sha256) for data in read]
        settings = plain(flatten(config) | {DATA: marks, VECTORS: self.vectors_sha256, VERSION: FORM})
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
            flags = plain(complete(earlier, type(config), file))
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
            # Paths of data and folder do not matter: the data's hashes have been compared.
            passing = NO_FLAGS | {"resume", "overwrite", "progress_bar", "dataloader_num_workers", "runs_dir", "gpus"}
            passing |= {"dataset", "data_path", "valid_dataset", "valid_path"}

            def differ(flag: str) -> bool:
                return bool(relative_to_root(flags.get(flag)) != relative_to_root(settings.get(flag)))

            changed = {k for k in flags | settings if k not in passing and differ(k)}
            if changed:
                told = ", ".join(f"{k} was {flags.get(k)} and is {settings.get(k)}" for k in sorted(changed))
                raise UserError(f"{self.folder} was run with other flags ({told}): use those, or --overwrite")
            if (self.folder / self.result).is_file():
                log.info("%s is finished already", self.folder)
                return False
        write_json(file, settings)
        return True

    def _take(self) -> None:
        """Make the folder and lock it; refuse one that is no run's."""
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
        """Delete an earlier run; after a kill the rest is still recognised as an unfinished run."""
        (self.folder / self.result).unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if path.name not in (CONFIG, LOCK):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        (self.folder / CONFIG).unlink()

    def write_results(
        self, module: NextItemModule, record: RunRecord, test_seconds: float, item_vector_bytes: int
    ) -> dict[str, Any]:
        """Write the ranks and, last, metrics.json; return what the latter holds."""
        parameters = [p.numel() for p in module.parameters()]
        metrics = {
            "family": self.family,
            "dataset": self.dataset.name,
            "init_type": self.init_type,
            "group": self.group,
            VECTORS: self.vectors_sha256,
            "seed": self.training.seed,
            "versions": {"seqrec": __version__} | {name: version(name) for name in LIBRARIES},
            "protocol": {
                **self.protocol.record,
                **self.drawn,
                "num_items": self.dataset.num_items,
                "sequences_sha256": self.dataset.sequences_sha256,
                "item_ids_sha256": self.dataset.item_ids_sha256,
            },
            "valid": record.best,
            "test": module.results,
            **({} if module.other_results is None else {"other": module.other_results}),
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
        users, tables = module.recorder.users, {RANKS: module.recorder.ranks}
        if module.other_results is not None:
            tables[OTHER_RANKS] = module.other_recorder.ranks
        if self.protocol.several_targets:
            tables[USERS] = users
        else:
            for name, ranks in tables.items():
                tables[name] = np.full(self.dataset.num_users, -1, dtype=np.int64)
                tables[name][users] = ranks
        for name, table in tables.items():
            with write_atomically(self.folder / name) as file:
                np.save(file, table, allow_pickle=False)
        write_json(self.folder / "metrics.json", metrics)
        return metrics


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
