"""The flags of PLMSASRec."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from seqrec.basics.checks import require_above, require_at_least, require_at_most
from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT
from seqrec.basics.published import PublishedFlags, drop, numbers, words
from seqrec.data.protocol import EvaluationProtocol
from seqrec.items.options import (
    Head,
    InputType,
    ItemLearningOptions,
    ItemOptions,
    PreInferenceOptions,
    PromptOptions,
    check_items,
)
from seqrec.nn.losses import LossOptions, check_repeat_score
from seqrec.nn.optimization import Schedule
from seqrec.training.options import TrainingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SasrecOptions:
    """The recommender over the items' vectors."""

    sasrec_seq_len: int = 20
    """Maximum number of most recent events that the model reads."""
    sasrec_hidden_size: int = 64
    """Width d."""
    sasrec_inner_size: int = 256
    """Inner width of the feed-forward networks."""
    sasrec_n_layers: int = 2
    """Transformer blocks."""
    sasrec_n_heads: int = 2
    """Attention heads per block."""
    sasrec_hidden_dropout: float = 0.5
    """Dropout rate of embeddings, attention's output and feed-forward activations."""
    sasrec_attention_dropout: float = 0.5
    """Dropout rate of attention weights."""
    sasrec_layer_norm_eps: Annotated[float, tyro.conf.arg(aliases=["--layer_norm_eps"])] = 1e-6
    """Added to the variance in norms."""
    sasrec_initializer_range: Annotated[float, tyro.conf.arg(aliases=["--initializer_range"])] = 0.02
    """Deviation of initial weights."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "sasrec_seq_len", "sasrec_hidden_size", "sasrec_inner_size")
        require_at_least(1, self, "sasrec_n_layers", "sasrec_n_heads")
        require_at_most(100_000, self, "sasrec_seq_len", "sasrec_hidden_size", "sasrec_inner_size")
        require_at_most(1_000, self, "sasrec_n_layers")
        require_above(0, self, "sasrec_layer_norm_eps", "sasrec_initializer_range")
        if self.sasrec_hidden_size % self.sasrec_n_heads:
            raise UserError(
                f"--sasrec_hidden_size {self.sasrec_hidden_size} must be a multiple of --sasrec_n_heads "
                f"{self.sasrec_n_heads}"
            )
        for name in ("sasrec_hidden_dropout", "sasrec_attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--{name} must lie in [0, 1), got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One PLMSASRec run: data, language model, prompts, cache, SASRec, loss, training and evaluation.

    `--recipe published` sets the published script's values, see docs/published-flags.md.
    """

    dataset: str | None = None
    """Name of a prepared dataset in data/; demo, unless --data_path is given."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere, or of raw data (dataset.pkl, train.json, *.inter): prepared once."""
    min_item_seq_len: int = 0
    """Leave out users with fewer interactions."""
    max_item_seq_len: int | None = None
    """Leave out users with more interactions."""
    input_type: InputType = "text"
    """Items as texts, or as ids with a vector each."""
    head: Head = "tied"
    """Scores: tied (products with the items' own vectors, so that new items can be scored) or untied (a linear
    layer with weights for every item)."""
    embedding_dir: Path = ROOT / "embedding"
    """Folder of the item vectors."""
    batch_size: int = 64
    """Users per training batch."""
    lr: Annotated[float, tyro.conf.arg(aliases=["--learning_rate"])] = 1e-3
    """Learning rate of AdamW for all but the language model's own weights."""
    weight_decay: float = 0.1
    """Decoupled weight decay of all of these but biases and norms."""
    schedule: Schedule = "constant"
    """Learning rate schedule: constant, or linear or cosine (to zero at --num_epochs)."""
    warmup_steps: float = 0
    """Warm-up steps of the learning rates, or, below 1, their share of all steps; at most half of these."""
    repeat_score: bool = False
    """Learn what is added to the score of an item that the history has; by its vector alone it is ranked first."""
    items: ItemOptions = field(default_factory=ItemOptions)
    prompt: PromptOptions = field(default_factory=PromptOptions)
    cache: PreInferenceOptions = field(default_factory=PreInferenceOptions)
    learning: ItemLearningOptions = field(default_factory=ItemLearningOptions)
    model: SasrecOptions = field(default_factory=SasrecOptions)
    objective: LossOptions = field(default_factory=LossOptions)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(num_epochs=100))
    protocol: EvaluationProtocol = field(default_factory=EvaluationProtocol)

    def __post_init__(self) -> None:
        require_above(0, self, "lr")
        require_at_least(0, self, "warmup_steps", "weight_decay", "min_item_seq_len", "max_item_seq_len")
        require_at_least(1, self, "batch_size")
        check_repeat_score(self.repeat_score, self.objective)
        if self.max_item_seq_len is not None and self.max_item_seq_len < max(2, self.min_item_seq_len):
            raise UserError(
                f"--max_item_seq_len {self.max_item_seq_len} must be at least 2 and --min_item_seq_len "
                f"{self.min_item_seq_len}"
            )
        check_items(self.input_type, self.items, self.prompt, self.cache, self.learning)


_STRATEGIES = {
    "none": "auto",
    "ddp_find_unused_parameters_false": "ddp",
    "stage_2": "deepspeed_stage_2",
    "stage_2_offload": "deepspeed_stage_2_offload",
    "stage_3": "deepspeed_stage_3",
    "stage_3_offload": "deepspeed_stage_3_offload",
}


def _devices(values: list[str]) -> list[str]:
    """Return `--devices` as a number of processes: one number from 1 is one already, others number GPUs."""
    listed = numbers("--devices", values)
    if len(listed) == 1 and listed != ["0"]:
        return ["--devices", *listed]
    return ["--devices", str(len(listed)), "--gpus", *listed]


PUBLISHED = PublishedFlags(
    taken={
        "--max_epochs": "--num_epochs",
        "--early_stop_patience": "--patience",
        "--check_val_every_n_epoch": "--eval_every",
        "--num_workers": "--dataloader_num_workers",
        "--use_prompt": "--use_prompt | --no_use_prompt",
        "--pre_inference": "--pre_inference | --no_pre_inference",
        "--last_n_unfreeze": "--plm_last_n_unfreeze",
    },
    converted={
        "--precision": words("--precision", {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}),
        "--strategy": words("--strategy", _STRATEGIES),
        "--split_type": words("--split", {"ratio": "users", "leave_one_out": "leave_one_out"}),
        "--devices": _devices,
        "--pre_inference_devices": lambda values: [
            "--pre_inference_devices",
            *numbers("--pre_inference_devices", values),
        ],
        "--topk_list": lambda values: ["--metric_ks", *numbers("--topk_list", values)],
        "--projection_inner_sizes": lambda values: [
            "--projection_inner_sizes",
            *numbers("--projection_inner_sizes", values),
        ],
        **dict.fromkeys(
            ("--prompt_projection", "--prompt_projeciton"),
            words(
                None,
                {
                    **dict.fromkeys(("True", "true", "nonlinear"), "--prompt_projection"),
                    **dict.fromkeys(("False", "false", "linear", "none"), "--no_prompt_projection"),
                },
            ),
        ),
        "--pre_inference_layer_wise": lambda values: ["--pre_inference_layer_wise", *(values or ["True"])],
        "--pre_inference_num_workers": drop(),
        "--pin_memory": drop(),
    },
    refused={
        "--architecture": "sasrec is the only one; drop the flag",
        "--sampling_n": "scripts/prepare.py SOURCE --sample_users N draws users when data are prepared",
    },
    recipe=("--head untied --min_item_seq_len 5 --split users --metric_ks 5 10 20 --best_metric Recall@10"),
)
