"""The flags of finetuning and of pretraining."""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch

from Recformer.pretraining import MlmPass
from seqrec.basics.checks import require_above, require_at_least
from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT
from seqrec.basics.published import PublishedFlags
from seqrec.data.protocol import EvaluationProtocol
from seqrec.text.options import EncoderOptions, LearningOptions
from seqrec.training.options import TrainingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemwiseOptions:
    """What is done with item vectors, and learned beside the texts; all of it is for --pooler_type items."""

    whiten: bool = False
    """Compare item vectors centred and whitened, by the means and variances that they start with over the catalogue."""
    item_bias: bool = False
    """Learn a score of each item, such as for how often it is bought."""
    repeat_score: bool = False
    """Learn what is added to the score of an item that the history has."""
    user_map: bool = False
    """Learn a linear map of the history's vector, which starts as the identity."""
    freeze_encoder: bool = False
    """Learn only these three, over the vectors that the encoder starts with."""
    head_lr: float = 0.01
    """Their highest learning rate, of the map a tenth of it."""
    map_decay: float = 1.0
    """Decoupled weight decay of the map towards the identity."""

    def __post_init__(self) -> None:
        require_above(0, self, "head_lr")
        require_at_least(0, self, "map_decay")
        if self.freeze_encoder and not (self.item_bias or self.repeat_score or self.user_map):
            raise UserError(
                "--freeze_encoder leaves nothing to learn: give --item_bias, --repeat_score or --user_map, or drop it"
            )


@dataclass(frozen=True, slots=True)
class FinetuneConfig:
    """One finetuning run.

    `--recipe published` sets the published script's values, see docs/published-flags.md.
    """

    dataset: str | None = None
    """Name of a prepared dataset in data/; demo, unless --data_path is given."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere, or of raw data (dataset.pkl, train.json, *.inter): prepared once."""
    pretrain_ckpt: Path | None = None
    """Weights of a pretrained Recformer to start from; without it, finetuning starts from the backbone."""
    embedding_dir: Path = ROOT / "embedding"
    """Folder of the exported item vectors."""
    finetune_negative_sample_size: int = -1
    """Negatives per batch of the training softmax; below 1, all items."""
    batch_size: int = 16
    """Users per training batch; each gives one target per epoch, with --pooler_type items all of its targets."""
    eval_max_tokens: int = 8192
    """Tokens per batch in evaluation and item encoding."""
    item_refresh: str = "epoch"
    """Refresh of the item vectors in stage 1: epoch, steps:N (every N optimiser steps), or never."""
    train_items: bool = False
    """Train the encoding of items, too: in stage 1 the classes are the batch's targets and sampled negatives."""
    second_stage_epochs: int | None = None
    """Maximum number of epochs of stage 2; by default that of stage 1, 0 skips it."""
    test_only: bool = False
    """Do not train: test the weights given (zero-shot) and export their vectors."""
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    itemwise: ItemwiseOptions = field(default_factory=ItemwiseOptions)
    learning: LearningOptions = field(default_factory=lambda: LearningOptions(warmup_steps=100))
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(num_epochs=16, patience=5))
    protocol: EvaluationProtocol = field(default_factory=EvaluationProtocol)

    def __post_init__(self) -> None:
        require_at_least(1, self, "batch_size", "eval_max_tokens")
        require_at_least(0, self, "second_stage_epochs")
        if not re.fullmatch(r"epoch|never|steps:[1-9]\d*", self.item_refresh):
            raise UserError(f"--item_refresh must be epoch, steps:N with N at least 1, or never: {self.item_refresh!r}")
        if (epochs := self.second_stage_epochs or self.training.eval_every) < self.training.eval_every:
            raise UserError(
                f"--second_stage_epochs {epochs} is less than --eval_every {self.training.eval_every}: no epoch of "
                "stage 2 would be validated; 0 leaves it out"
            )
        if self.train_items and self.item_refresh == "never":
            raise UserError("--train_items changes the items' vectors, --item_refresh never keeps them: drop one")
        if self.itemwise != ItemwiseOptions() and not self.reads_items:
            flags = [f"--{x.name}" for x in fields(ItemwiseOptions) if getattr(self.itemwise, x.name) != x.default]
            raise UserError(f"{', '.join(flags)}: only with --pooler_type items, which reads each item on its own")
        if self.itemwise.freeze_encoder and (self.train_items or self.learning.lora_r):
            raise UserError("--freeze_encoder trains no encoder: drop it, or drop --train_items and --lora_r")

    @property
    def reads_items(self) -> bool:
        """Return whether histories are read item by item."""
        return self.encoder.pooler_type == "items"

    @property
    def refreshes(self) -> bool:
        """Return whether the item vectors change in training."""
        return self.item_refresh != "never" and not self.itemwise.freeze_encoder

    @property
    def starts(self) -> list[str]:
        """Names of the vectors exported before training; training starts from the last."""
        return ["longformer"] if self.pretrain_ckpt is None else ["longformer", "pretrain"]

    @property
    def refresh_steps(self) -> int | None:
        """Optimiser steps between item encodings in stage 1, besides those at every epoch's start."""
        mode, _, steps = self.item_refresh.partition(":")
        return int(steps) if mode == "steps" else None


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    """One pretraining run.

    `--recipe published` sets the published script's values, see docs/published-flags.md.
    """

    dataset: str | None = None
    """Name of the prepared dataset to read, such as one that `scripts/prepare.py corpus` made."""
    data_path: Path | None = None
    """Its folder, where it lies elsewhere."""
    valid_dataset: str | None = None
    """Name of the prepared dataset of a held-out domain, which chooses the best weights."""
    valid_path: Path | None = None
    """Its folder, where it lies elsewhere."""
    mlm_weight: float = 0.1
    """Weight of masked language modelling added to the contrastive loss; 0 leaves it out."""
    mlm_probability: float = 0.15
    """Share of tokens that are masked, in whole words."""
    mlm_pass: MlmPass = "shared"
    """Passes per text: shared (one masked pass for both losses) or separate (one plain, one masked)."""
    untie_decoder: bool = False
    """Predict masked words with a separate table instead of the word embeddings; --fix_word_embedding leaves it
    trainable."""
    batch_size: int = 16
    """Histories, each with its target, whose activations are in memory at one time."""
    contrast_batch: int | None = None
    """Histories whose targets are one another's negatives, over all processes; by default one batch of each."""
    domains_apart: bool = False
    """Make each batch from one domain, so that negatives come from the target's domain."""
    window: int = 1
    """Events of each user whose items are read one by one, the target the last: negatives for the others, and each but
    the first predicted from the recency-weighted mean of those before it. 1 reads the target alone."""
    ckpt: Path | None = None
    """Continue from another run's `checkpoints/last.ckpt`, with its optimiser and epoch. For the run's own use
    --resume."""
    valid_step: int | None = None
    """Training batches between validations, which are also where --resume continues; by default an epoch."""
    eval_max_tokens: int = 8192
    """Tokens per batch in validation and item encoding."""
    encoder: EncoderOptions = field(default_factory=lambda: EncoderOptions(max_token_num=1024))
    learning: LearningOptions = field(default_factory=LearningOptions)
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            num_epochs=32,
            patience=1000,
            gradient_clip_val=1.0,
            strategy="deepspeed_stage_2" if torch.cuda.is_available() else "auto",
        )
    )
    protocol: EvaluationProtocol = field(default_factory=EvaluationProtocol)

    def __post_init__(self) -> None:
        if self.valid_dataset is None and self.valid_path is None:
            raise UserError("--valid_dataset names the prepared dataset that chooses the best weights: give one")
        if not 0 < self.mlm_probability < 1 or self.mlm_weight < 0:
            raise UserError(
                f"--mlm_probability must lie in (0, 1) and --mlm_weight be 0 or more, got {self.mlm_probability} and "
                f"{self.mlm_weight}"
            )
        if self.untie_decoder and not self.mlm_weight:
            raise UserError(
                "--untie_decoder is for hidden words, which --mlm_weight 0 leaves out: remove one of the two"
            )
        require_at_least(1, self, "batch_size", "contrast_batch", "window", "valid_step", "eval_max_tokens")

    @property
    def rows_per_step(self) -> int:
        """Histories of a training batch, over all processes."""
        return self.contrast_batch or self.batch_size * self.training.devices * self.training.num_nodes


_FILES = "--data_path reads a folder of such files; `scripts/prepare.py recformer` takes other names, too"
_LISTS = "`scripts/prepare.py recformer --sequences_file FILE --meta_file FILE` prepares it, for "
_CHECKPOINTS = "the run's folder has checkpoints/best.ckpt and stage1/checkpoints/best.ckpt; --run_name names it"
_FP16 = {"--fp16": "--precision 16-mixed"}
_TOKENS = {"--preprocessing_num_workers": "tokens are made once, by all cores; drop the flag"}
_BACKBONE = "--model_name_or_path allenai/longformer-base-4096"
FINETUNE_PUBLISHED = PublishedFlags(
    taken=_FP16 | {"--test_only": "--test_only | --no_test_only"},
    refused=_TOKENS
    | {
        "--device": "CUDA_VISIBLE_DEVICES=N before the command chooses a GPU, --accelerator cpu none",
        "--ckpt": _CHECKPOINTS,
        "--ckptf1": _CHECKPOINTS,
        "--train_file": _FILES,
        "--dev_file": _FILES,
        "--test_file": _FILES,
        "--item2id_file": _FILES,
        "--meta_file": _FILES,
        "--first_stage_start_epoch": "--resume continues a run where it was interrupted",
        "--second_stage_start_epoch": "--resume continues a run where it was interrupted",
    },
    recipe=(
        f"{_BACKBONE} --max_token_num 1024 --sample_size 100 --finetune_negative_sample_size 1000 "
        "--accumulate_grad_batches 8 --empty_attributes keep"
    ),
)
PRETRAIN_PUBLISHED = PublishedFlags(
    taken=_FP16 | {"--device": "--devices"},
    refused=_TOKENS
    | {
        "--train_file": _LISTS + "--dataset",
        "--dev_file": _LISTS + "--valid_dataset",
        "--item_attr_file": _LISTS + "--dataset",
        "--log_step": "the losses are logged once per epoch; drop the flag",
    },
    recipe=(
        f"{_BACKBONE} --accumulate_grad_batches 8 --fix_word_embedding --untie_decoder --mlm_pass separate "
        "--empty_attributes keep"
    ),
)
