"""The flags of the baselines."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT
from seqrec.data.protocol import EvaluationProtocol
from seqrec.training.options import TrainingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One baseline's test."""

    dataset: Annotated[str | None, tyro.conf.arg(aliases=["--dataset_code"])] = None
    """Name of a prepared dataset in data/; demo, unless --data_path is given."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere, or of raw data (dataset.pkl, train.json, *.inter): prepared once."""
    baseline: Literal["popularity", "recency", "favourites"] = "popularity"
    """Ranking: popularity (how often an item occurs in training), recency (an event counts half after every half-life)
    or favourites (how often it occurs in the user's own history, in the same way; then popularity)."""
    half_life: float | None = None
    """Of recency and favourites, as a share of the oldest event's age; by default the best of 1/2, 1/4, ... 1/16384 on
    validation."""
    best_metric: str = "NDCG@10"
    """Validation metric that selects the half-life."""
    runs_dir: Annotated[Path, tyro.conf.arg(aliases=["--output_dir", "--experiment_dir"])] = ROOT / "runs"
    """Folder of the run folders."""
    run_name: str | None = None
    """Name of the run folder; by default the baseline's."""
    resume: bool = False
    """Leave a finished run as it is."""
    overwrite: bool = False
    """Delete an earlier run of that name first."""
    progress_bar: bool = True
    """Show a progress bar on a terminal."""
    protocol: EvaluationProtocol = field(default_factory=EvaluationProtocol)

    def __post_init__(self) -> None:
        if self.half_life is not None and self.baseline == "popularity":
            raise UserError("--half_life is for --baseline recency and favourites")
        if self.half_life is not None and self.half_life <= 0:
            raise UserError(f"--half_life must be above 0, got {self.half_life}")

    @property
    def training(self) -> TrainingConfig:
        """The training options that a run folder needs."""
        return TrainingConfig(
            best_metric=self.best_metric,
            accelerator="cpu",
            runs_dir=self.runs_dir,
            run_name=self.run_name or self.baseline,
            resume=self.resume,
            overwrite=self.overwrite,
            progress_bar=self.progress_bar,
        )
