"""The flags of text encoders: backbone, limits, learning."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from seqrec.basics.checks import require_above, require_at_least, require_at_most
from seqrec.basics.errors import UserError

Pooling = Literal["cls", "mean", "recency", "items"]
"""A sequence's vector: that of its first token, the mean over all of them, or a mean of items that weighs recent ones
more, be they read together or each alone."""
TextPooling = Literal["mean", "last", "mean_last", "cls", "pooler"]
"""A text's vector: the mean over its tokens, the last one, both side by side, the first, or a BERT's pooler of that."""
EmptyAttributes = Literal["drop", "keep"]
"""What is read of an attribute without text: nothing, or its name."""


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """The backbone and its limits."""

    model_name_or_path: str = "minilm"
    """Backbone: minilm, a folder, or the name of a Longformer, RoBERTa, BERT or ModernBERT on the Hugging Face hub."""
    longformer_ckpt: Path | None = None
    """Backbone written by save_longformer_ckpt.py, instead of converting --model_name_or_path."""
    max_token_num: int = 512
    """Maximum number of tokens of a history, the most recent items first."""
    max_attr_num: int = 3
    """Maximum number of attributes of an item."""
    max_attr_length: int = 32
    """Maximum number of tokens of an attribute, name and value together."""
    empty_attributes: EmptyAttributes = "drop"
    """Attributes without text: drop (they are not read) or keep (their name is read, and counts)."""
    attention_window: int | None = None
    """Attention window in tokens, both sides together; by default 64, in a ModernBERT that of its training."""
    pooler_type: Pooling | None = None
    """A text's vector: its first token's (cls), the mean over its tokens, or a mean of its items in which recent ones
    weigh more, read as one text (recency) or each on its own (items). By default cls or mean, as the backbone was
    trained."""
    item_decay: float = 0.5
    """Of recency and items, what an item weighs beside the one bought next."""
    temp: float = 0.05
    """Temperature: cosine similarities are divided by it."""
    dropout: float | None = None
    """Dropout rate of the encoder, of attention too; by default what the backbone was trained with."""

    def __post_init__(self) -> None:
        require_at_least(2, self, "max_token_num", "attention_window")
        require_at_most(100_000, self, "max_token_num")
        require_at_least(1, self, "max_attr_num", "max_attr_length")
        require_above(0, self, "temp")
        if not 0 < self.item_decay <= 1:
            raise UserError(f"--item_decay must lie in (0, 1], got {self.item_decay}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise UserError(f"--dropout must lie in [0, 1), got {self.dropout}")

    @property
    def source(self) -> tuple[str, Path | None]:
        """Return the arguments with which `load_backbone` finds the backbone."""
        return self.model_name_or_path, self.longformer_ckpt

    @property
    def changes(self) -> dict[str, Any]:
        """Return the fields of the model's configuration that these options set."""
        fixed = {
            "max_token_num": self.max_token_num,
            "max_attr_num": self.max_attr_num,
            "max_attr_length": self.max_attr_length,
            "empty_attributes": self.empty_attributes,
            "item_decay": self.item_decay,
            "temp": self.temp,
        }
        chosen = {
            "attention_window": self.attention_window,
            "pooler_type": self.pooler_type,
            "hidden_dropout_prob": self.dropout,
            "attention_probs_dropout_prob": self.dropout,
        }
        return fixed | {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraOptions:
    """Low-rank updates in place of the weights themselves."""

    lora_r: int = 0
    """Rank of LoRA's low-rank updates; 0 trains the weights themselves."""
    lora_alpha: int = 16
    """Alpha of LoRA: an update is scaled by alpha / r."""
    lora_dropout: float = 0.1
    """Dropout rate of the input of low-rank updates."""
    lora_targets: tuple[str, ...] = ("query", "key", "value", "query_global", "key_global", "value_global", "dense")
    """Names of the projections that get a low-rank update."""

    def __post_init__(self) -> None:
        require_at_least(0, self, "lora_r")
        require_at_most(100_000, self, "lora_r")
        require_at_least(1, self, "lora_alpha")
        if not 0 <= self.lora_dropout < 1:
            raise UserError(f"--lora_dropout must lie in [0, 1), got {self.lora_dropout}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningOptions(LoraOptions):
    """Which parameters of the encoder are trained, and how fast."""

    lr: Annotated[float, tyro.conf.arg(aliases=["--learning_rate"])] = 5e-5
    """Highest learning rate of AdamW."""
    weight_decay: float = 0.0
    """Decoupled weight decay of all weights but biases and norms."""
    warmup_steps: int = 0
    """Warm-up steps of each stage, at most half of it; then the rate falls linearly to zero."""
    fix_word_embedding: bool = False
    """Do not train the word embeddings."""

    def __post_init__(self) -> None:
        LoraOptions.__post_init__(self)
        require_above(0, self, "lr")
        require_at_least(0, self, "weight_decay", "warmup_steps")
        if not self.lora_targets:
            raise UserError("--lora_targets must name at least one projection")
