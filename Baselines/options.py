"""The flags of the baselines."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from seqrec.basics.checks import require_at_least
from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT
from seqrec.data.protocol import EvaluationProtocol
from seqrec.training.options import TrainingConfig

Baseline = Literal[
    "popularity", "recency", "favourites", "item-knn", "text-knn", "rules", "vectors", "newest", "latest"
]
Pool = Literal["card", "mean", "cls", "last"]
DATED = ("recency", "favourites", "item-knn", "text-knn", "rules", "vectors")
"""Rankings in which recent events count more."""
ENCODE = "Baselines/encode.py"
"""Who made item vectors, as it is recorded beside them."""
OF_COMMENTS = ("newest", "latest", "popularity", "text-knn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One baseline's test."""

    dataset: Annotated[str | None, tyro.conf.arg(aliases=["--dataset_code"])] = None
    """Name of a prepared dataset in data/; demo, unless --data_path is given."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere, or of raw data (dataset.pkl, train.json, *.inter): prepared once."""
    baseline: Baseline = "popularity"
    """Ranking: popularity (how often an item occurs in training), recency (an event counts half after every half-life),
    favourites (how often it occurs in the user's own history, in the same way; then popularity), item-knn or text-knn
    (how near it is to items of the history, by the users they share or by the words of their texts; recent ones count
    more), rules (how often it came within ten events after them), vectors (how near its vector of --init_type is to the
    mean of theirs), newest (what was published, or first had by anybody, last) or latest (what anybody had last)."""
    init_type: str | None = None
    """Of vectors, the item vectors: embedding/DATASET/INIT_TYPE.npy, or the path of a .npy file."""
    embedding_dir: Path = ROOT / "embedding"
    """Folder of item vectors."""
    user_as: Literal["mean", "text"] = "mean"
    """Of vectors, what stands for a user: the mean of the vectors, or the vector of the texts of the latest
    --max_his_len items, read as one text, the latest first, by the encoder that made the vectors."""
    max_his_len: int = 10
    """Of --user_as text, the greatest number of items."""
    comments: bool = False
    """Rank the comments under a video in place of items, by newest, latest, popularity (how often one was taken up
    before) or text-knn."""
    half_life: float | None = None
    """Of all but popularity, newest and latest, as a share of the oldest event's age; by default the best of 1/2, 1/4,
    ... 1/16384 on validation."""
    neighbours: int = 100
    """Of item-knn, text-knn and rules, the nearest items that an item of the history speaks for."""
    max_candidate_num: int = 100
    """With --comments, greatest number of comments that are ranked under a video; taken ones are always among them."""
    best_metric: str = "NDCG@10"
    """Validation metric that selects the half-life."""
    valid_users: int | None = None
    """Users of the validation, drawn where there are more; by default all."""
    runs_dir: Annotated[Path, tyro.conf.arg(aliases=["--output_dir", "--experiment_dir"])] = ROOT / "runs"
    """Folder of the run folders."""
    run_name: str | None = None
    """Name of the run folder; by default the baseline's, with --comments after comments-."""
    resume: bool = False
    """Leave a finished run as it is."""
    overwrite: bool = False
    """Delete an earlier run of that name first."""
    progress_bar: bool = True
    """Show a progress bar on a terminal."""
    protocol: EvaluationProtocol = field(default_factory=EvaluationProtocol)

    def __post_init__(self) -> None:
        if self.half_life is not None and (self.baseline not in DATED or self.comments):
            raise UserError(f"--half_life is for items and for --baseline {', '.join(DATED)}")
        if (self.init_type is not None) != (self.baseline == "vectors"):
            raise UserError("--init_type NAME is for --baseline vectors, which needs it")
        if self.user_as == "text" and (self.baseline != "vectors" or self.half_life is not None):
            raise UserError("--user_as text is for --baseline vectors, without a --half_life")
        require_at_least(1, self, "neighbours", "max_his_len")
        require_at_least(2, self, "max_candidate_num")
        if self.comments and self.baseline not in OF_COMMENTS:
            raise UserError(f"--comments are ranked by {', '.join(OF_COMMENTS)}: give one as --baseline")
        if self.comments and self.protocol != EvaluationProtocol(metric_ks=self.protocol.metric_ks):
            raise UserError("--comments have --max_candidate_num: drop the flags of how items are held out and ranked")
        if self.half_life is not None and self.half_life <= 0:
            raise UserError(f"--half_life must be above 0, got {self.half_life}")

    @property
    def name(self) -> str:
        """The name of the run's folder if none is given."""
        if self.init_type is not None:
            told = "-text" * (self.user_as == "text")
            return f"{self.baseline}-{Path(self.init_type).name.removesuffix('.npy')}{told}"
        return "comments-" * self.comments + self.baseline

    @property
    def training(self) -> TrainingConfig:
        """The training options that a run folder needs."""
        return TrainingConfig(
            best_metric=self.best_metric,
            valid_users=self.valid_users,
            accelerator="cpu",
            runs_dir=self.runs_dir,
            run_name=self.run_name or self.name,
            resume=self.resume,
            overwrite=self.overwrite,
            progress_bar=self.progress_bar,
        )
