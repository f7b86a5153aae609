"""The flags of LSVCR's models."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from seqrec.basics.checks import require_above, require_at_least
from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT
from seqrec.data.protocol import WINDOW, EvaluationProtocol
from seqrec.data.vectors import NONE
from seqrec.nn.blocks import check_sizes
from seqrec.nn.optimization import Schedule
from seqrec.training.options import TrainingConfig

Task = Literal["Rec", "CommRank"]
Timing = Literal["none", "age", "heat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """The architecture."""

    hidden_units: Annotated[int, tyro.conf.arg(aliases=["--hidden_size"])] = 64
    """Width D."""
    num_blocks: Annotated[int, tyro.conf.arg(aliases=["--n_layers"])] = 2
    """Transformer blocks of each history."""
    n_mix_layers: int = 1
    """Blocks in which one history reads the other."""
    num_heads: Annotated[int, tyro.conf.arg(aliases=["--n_heads"])] = 2
    """Attention heads per block."""
    inner_size: int = 256
    """Inner width of the feed-forward networks."""
    dropout_rate: Annotated[float, tyro.conf.arg(aliases=["--hidden_dropout_prob"])] = 0.3
    """Dropout rate of embeddings, attention weights and what a block adds."""
    maxlen: Annotated[int, tyro.conf.arg(aliases=["--max_position"])] = 50
    """Latest videos, and latest entries of comments, that the model reads."""
    llm_emb_size: int = 256
    """Wider text vectors are first mapped to this width."""

    def __post_init__(self) -> None:
        check_sizes(self, least_length=1)
        require_at_least(1, self, "n_mix_layers", "inner_size", "llm_emb_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One run: data, task, texts, architecture, loss, training and evaluation."""

    dataset: Annotated[str | None, tyro.conf.arg(aliases=["--dataset_code"])] = None
    """Name of a prepared dataset with comments in data/, such as comments-demo, unless --data_path is given."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere."""
    task: Annotated[Task, tyro.conf.arg(aliases=["--finetune_task"])] = "Rec"
    """Rec (which video a user watches next) or CommRank (which comments under a video a user takes up)."""
    text: str = NONE
    """Text vectors: none, or a name for which there are vectors of videos and of comments, embedding/DATASET/NAME.npy
    and embedding/DATASET-comments/NAME.npy."""
    embedding_dir: Path = ROOT / "embedding"
    """Folder of the text vectors."""
    disable_id: bool = False
    """Read texts alone: videos have no vectors of their own."""
    timing: Timing = "none"
    """What the clock adds to the score of a comment, or with --fresh_days of a video, by a learned network: none, age
    (how long it has been there) or heat (that, and when and how often anybody took it up until now)."""
    start_from: Path | None = None
    """Folder of a finished run of align.py: the model starts with its weights."""
    model: ModelOptions = field(default_factory=ModelOptions)
    temperature: float = 0.07
    """Scores are cosines divided by it."""
    id_text_loss_weight: float = 0.1
    """Weight of the loss that brings videos' own vectors and texts together."""
    contrast_neg_num: int = 99
    """Other videos of the batch that this loss tells a video from."""
    neg_video_num: int = -1
    """Other videos of the last --fresh_days that the watched one is told from, in training for Rec with --timing; -1
    all. Without --timing it is told from all videos there are."""
    neg_comment_num: int = 19
    """Comments that the taken one is told from, in training for CommRank."""
    max_candidate_num: int = 100
    """Greatest number of comments that are ranked under a video; taken ones are always among them."""
    batch_size: int = 512
    """Cases per training batch."""
    lr: Annotated[float, tyro.conf.arg(aliases=["--learning_rate"])] = 1e-3
    """Learning rate of AdamW."""
    weight_decay: float = 1e-5
    """Decoupled weight decay of all weights but biases and norms."""
    schedule: Schedule = "constant"
    """Learning rate schedule: constant, or linear or cosine (to zero at --num_epochs)."""
    warmup_steps: float = 0
    """Warm-up steps of the learning rate, or, below 1, their share of all steps."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    protocol: EvaluationProtocol = field(default_factory=EvaluationProtocol)

    def __post_init__(self) -> None:
        require_above(0, self, "temperature", "lr")
        require_at_least(0, self, "id_text_loss_weight", "weight_decay", "warmup_steps")
        require_at_least(1, self, "contrast_neg_num", "neg_comment_num", "batch_size")
        require_at_least(2, self, "max_candidate_num")
        if self.disable_id and self.text == NONE:
            raise UserError("--disable_id leaves texts alone, and --text none has none: give --text NAME")
        if self.start_from is not None and self.text == NONE:
            raise UserError("--start_from brings weights that read texts, and --text none has none: give --text NAME")
        timed = self.timing != NONE
        if timed and self.task == "Rec" and self.protocol.fresh_days is None:
            raise UserError(f"--timing {self.timing} for --task Rec is that of what is fresh: give --fresh_days, too")
        if self.neg_video_num != -1:
            require_at_least(1, self, "neg_video_num")
            if self.task != "Rec" or not timed:
                raise UserError("--neg_video_num is for --task Rec with --timing: without, all videos are told apart")
        protocol = self.protocol
        if protocol.split != "leave_one_out" or any(
            getattr(protocol, name) not in (0, usual) for name, usual in WINDOW.items()
        ):
            raise UserError(
                "cases are held out by --split leave_one_out alone, of all events: drop --last_k_eval_test, "
                "--item_start_position and --item_end_position"
            )
        plain = EvaluationProtocol(metric_ks=protocol.metric_ks), None
        if self.task == "CommRank" and (replace(protocol, item_end_position=None), self.training.valid_users) != plain:
            raise UserError(
                "--sample_size, --candidates, --fresh_days, --filter_seen and --valid_users are for --task Rec: "
                "comments have --max_candidate_num"
            )
