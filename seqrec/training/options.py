"""The flags of training that all families share."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from seqrec.basics.checks import require_above, require_at_least, require_at_most
from seqrec.basics.errors import UserError
from seqrec.basics.names import check_name
from seqrec.basics.paths import ROOT
from seqrec.basics.precision import Precision

StrategyName = Literal[
    "auto",
    "ddp",
    "fsdp",
    "fsdp_offload",
    "deepspeed_stage_2",
    "deepspeed_stage_2_offload",
    "deepspeed_stage_3",
    "deepspeed_stage_3_offload",
]


@dataclass(frozen=True, slots=True)
class FitConfig:
    """Training length, hardware and output folder."""

    num_epochs: Annotated[int, tyro.conf.arg(aliases=["--num_train_epochs"])] = 200
    """Maximum number of epochs."""
    seed: int = 42
    """Seed of weights, batches, dropout and training negatives."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Hardware: auto, cpu or gpu."""
    devices: int = 1
    """Processes per machine, one per GPU or CPU core."""
    gpus: tuple[int, ...] = ()
    """Numbers of the GPUs to use, as many as --devices; by default the first ones."""
    num_nodes: int = 1
    """Number of machines."""
    strategy: StrategyName = "auto"
    """Strategy for several devices; fsdp and deepspeed shard the training's state, too, and their offload forms keep it
    in the machine's memory."""
    precision: Precision = "32-true"
    """Precision of the forward and backward pass; scores and metrics are always float32."""
    gradient_clip_val: float | None = None
    """Maximum norm of the gradient; not clipped if not given."""
    accumulate_grad_batches: Annotated[int, tyro.conf.arg(aliases=["--gradient_accumulation_steps"])] = 1
    """Batches per optimiser step."""
    dataloader_num_workers: int = 0
    """Worker processes that make batches."""
    runs_dir: Annotated[Path, tyro.conf.arg(aliases=["--output_dir", "--experiment_dir"])] = ROOT / "runs"
    """Folder of the run folders."""
    run_name: str | None = None
    """Name of the run folder; by default the item vectors' name and the seed."""
    resume: bool = False
    """Continue an interrupted run of the same configuration; a finished one is left as it is."""
    overwrite: bool = False
    """Delete an earlier run of that name first; a family that exports item vectors replaces other ones too."""
    progress_bar: bool = True
    """Show a progress bar on a terminal; files and pipes get one line per epoch."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "num_epochs", "devices", "num_nodes", "accumulate_grad_batches")
        require_at_least(0, self, "dataloader_num_workers")
        require_above(0, self, "gradient_clip_val")
        require_at_most(256, self, "dataloader_num_workers")
        if self.gpus and (len(set(self.gpus)) < self.devices or len(self.gpus) != self.devices or min(self.gpus) < 0):
            raise UserError(f"--gpus {self.gpus} must be --devices {self.devices} different numbers from 0")
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
        if on_gpu and max(self.gpus, default=0) >= there:
            raise UserError(f"--gpus {max(self.gpus)}: this machine has {there} GPUs, numbered from 0")

    @property
    def placement(self) -> int | list[int]:
        """What Lightning takes as `devices`."""
        on_gpu = self.accelerator != "cpu" and torch.cuda.is_available()
        return list(self.gpus) if self.gpus and on_gpu else self.devices


@dataclass(frozen=True, slots=True)
class TrainingConfig(FitConfig):
    """Training length, choice of the epoch, hardware and output folder."""

    patience: int = 10
    """Validations without improvement before training stops."""
    best_metric: str = "NDCG@10"
    """Validation metric that selects the epoch and stops training early."""
    valid_users: int | None = None
    """Number of validation users, drawn by the seed; all if not given. The test always takes all."""
    eval_every: Annotated[int, tyro.conf.arg(aliases=["--verbose"])] = 1
    """Epochs between validations."""

    def __post_init__(self) -> None:
        FitConfig.__post_init__(self)
        require_at_least(1, self, "patience", "eval_every", "valid_users")
        if self.eval_every > self.num_epochs:
            raise UserError(
                f"--eval_every {self.eval_every} is more than --num_epochs {self.num_epochs}: "
                "no epoch would be validated, so none could be chosen"
            )


def is_sharded(name: StrategyName) -> bool:
    """Return whether a strategy shares out the training's state, and leaves a module in pieces."""
    return name not in ("auto", "ddp")


def writes_files(name: StrategyName) -> bool:
    """Return whether a strategy's checkpoints are files, and not folders."""
    return not name.startswith("deepspeed")
