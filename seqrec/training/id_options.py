"""The flags that models over item ids have in common."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from seqrec.basics.checks import require_above, require_at_least
from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT
from seqrec.data.protocol import EvaluationProtocol
from seqrec.data.vectors import NONE
from seqrec.nn.item_table import TableOptions
from seqrec.nn.losses import LossOptions, check_repeat_score
from seqrec.nn.optimization import Schedule
from seqrec.training.options import TrainingConfig

# What published scripts of several families call otherwise, see seqrec.basics.published.
PREPARED = {
    "--min_uc": "scripts/prepare.py SOURCE --min_uc N filters when data are prepared",
    "--min_sc": "scripts/prepare.py SOURCE --min_sc N filters when data are prepared",
}
PUBLISHED_RUNS = {
    "--local_rank": "--devices N starts the processes itself; under torchrun drop the flag",
    "--experiment_description": "--run_name names the run's folder",
    "--log_period_as_iter": "the loss is logged once per epoch, and every --eval_every epochs the model is validated",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IdModelConfig:
    """Data, item vectors, loss, training and evaluation of a run; a family adds its architecture."""

    dataset: Annotated[str | None, tyro.conf.arg(aliases=["--dataset_code"])] = None
    """Name of a prepared dataset in data/; demo, unless --data_path is given."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere, or of raw data (dataset.pkl, train.json, *.inter): prepared once."""
    init_type: str = NONE
    """Item vectors to start from: none (random), longformer, pretrain, finetune, or any file of embedding/DATASET/."""
    embedding_dir: Path = ROOT / "embedding"
    """Folder of the item vectors."""
    batch_size: int = 128
    """Users per training batch."""
    lr: Annotated[float, tyro.conf.arg(aliases=["--learning_rate"])] = 1e-3
    """Learning rate of Adam."""
    item_lr: float | None = None
    """Learning rate of the item table; by default --lr, for given vectors a tenth: the full rate quickly erases
    them."""
    schedule: Schedule = "constant"
    """Learning rate schedule: constant, or linear or cosine (to zero at --num_epochs)."""
    warmup_steps: float = 0
    """Warm-up steps of the learning rates, or, below 1, their share of all steps; at most half of these."""
    weight_decay: float = 0.0
    """Decoupled weight decay of all weights but biases and norms."""
    table: TableOptions = field(default_factory=TableOptions)
    objective: LossOptions = field(default_factory=LossOptions)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    protocol: EvaluationProtocol = field(default_factory=EvaluationProtocol)

    @property
    def table_lr(self) -> float:
        """Learning rate of the item table."""
        if self.item_lr is not None:
            return self.item_lr
        return self.lr if self.init_type == NONE else self.lr / 10

    def __post_init__(self) -> None:
        if self.table.mode != "init" and self.init_type == NONE:
            raise UserError(
                f"--init_mode {self.table.mode} with --init_type none would keep item vectors random: give --init_type"
            )
        if self.init_type == NONE and self.table not in (TableOptions(), TableOptions(init_transform=("none",))):
            raise UserError("--init_transform, --fit_transform and --init_mode are for given vectors: give --init_type")
        if self.item_lr is not None and self.table.is_frozen:
            raise UserError(f"--item_lr has no effect on --init_mode {self.table.mode}, whose vectors are fixed")
        if (self.table.unfreeze_at or 0) > self.training.num_epochs:
            raise UserError(
                f"--unfreeze_at {self.table.unfreeze_at} is never reached: --num_epochs is {self.training.num_epochs}"
            )
        require_above(0, self, "lr")
        require_at_least(0, self, "item_lr", "warmup_steps", "weight_decay")
        require_at_least(1, self, "batch_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatingConfig(IdModelConfig):
    """The same for families whose batches and inputs tell as `had`, a `seqrec.nn.repeats.Had`, what histories have."""

    repeat_score: bool = False
    """Learn what is added to the score of an item that the history has; by its vector alone it is ranked first."""

    def __post_init__(self) -> None:
        IdModelConfig.__post_init__(self)
        check_repeat_score(self.repeat_score, self.objective)
