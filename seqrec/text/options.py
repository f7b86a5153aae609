"""Which encoder, how much text it reads, and how it learns: the flags that pretraining and finetuning share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from seqrec.basics.checks import require_above, require_at_least, require_at_most
from seqrec.basics.errors import UserError

Pooling = Literal["cls", "mean"]
"""A sequence's vector: that of its first token, or the mean over all of them."""


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """The backbone and its limits."""

    model_name_or_path: str = "minilm"
    """Backbone: minilm, a folder, or the name of a Longformer, RoBERTa, BERT or ModernBERT on the Hugging Face hub."""
    longformer_ckpt: Path | None = None
    """Backbone as save_longformer_ckpt.py wrote it; instead of converting --model_name_or_path anew."""
    max_token_num: int = 512
    """Tokens of a history that are read, the most recent items first."""
    max_attr_num: int = 3
    """Attributes of an item that are read."""
    max_attr_length: int = 32
    """Tokens of an attribute, name and value together."""
    attention_window: int | None = None
    """Tokens that a token sees, both sides together; by default 64, and in a ModernBERT what it was trained with."""
    pooler_type: Pooling | None = None
    """A text's vector: its first token's, or the mean over its tokens. By default what the backbone was trained for."""
    temp: float = 0.05
    """Cosine similarities are divided by this."""

    def __post_init__(self) -> None:
        require_at_least(2, self, "max_token_num", "attention_window")
        require_at_most(100_000, self, "max_token_num")
        require_at_least(1, self, "max_attr_num", "max_attr_length")
        require_above(0, self, "temp")

    @property
    def source(self) -> tuple[str, Path | None]:
        """Return what `load_backbone` finds the backbone by."""
        return self.model_name_or_path, self.longformer_ckpt

    @property
    def changes(self) -> dict[str, Any]:
        """Return the fields of the model's configuration that these options set."""
        fixed = {
            "max_token_num": self.max_token_num,
            "max_attr_num": self.max_attr_num,
            "max_attr_length": self.max_attr_length,
            "temp": self.temp,
        }
        chosen = {"attention_window": self.attention_window, "pooler_type": self.pooler_type}
        return fixed | {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True, slots=True)
class LearningOptions:
    """What of the encoder learns, and how fast."""

    lr: Annotated[float, tyro.conf.arg(aliases=["--learning_rate"])] = 5e-5
    """Highest learning rate of AdamW."""
    weight_decay: float = 0.0
    """Decoupled weight decay, for weights that are no bias and no norm."""
    warmup_steps: int = 0
    """Optimiser steps in which the rate rises, in each stage, at most half of it; then it falls linearly to zero."""
    fix_word_embedding: bool = False
    """Keep the word embeddings as they are."""
    lora_r: int = 0
    """Rank of low-rank updates that are learnt in place of the weights themselves; 0 learns the weights."""
    lora_alpha: int = 16
    """A low-rank update counts alpha / r times."""
    lora_dropout: float = 0.1
    """Share dropped of what the low-rank updates read."""
    lora_targets: tuple[str, ...] = ("query", "key", "value", "query_global", "key_global", "value_global", "dense")
    """Projections of the encoder's layers that get a low-rank update."""

    def __post_init__(self) -> None:
        require_above(0, self, "lr")
        require_at_least(0, self, "weight_decay", "warmup_steps")
        require_at_least(0, self, "lora_r")
        require_at_most(100_000, self, "lora_r")
        require_at_least(1, self, "lora_alpha")
        if not 0 <= self.lora_dropout < 1:
            raise UserError(f"--lora_dropout must lie in [0, 1), got {self.lora_dropout}")
        if not self.lora_targets:
            raise UserError("--lora_targets must name at least one projection")
