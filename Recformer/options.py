"""Which encoder, and how much text it reads: the flags that pretraining, finetuning and encoding share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """The backbone and its limits."""

    model_name_or_path: str = "minilm"
    """Backbone: minilm, a local folder, or the name of a Longformer, RoBERTa or BERT on the Hugging Face hub."""
    longformer_ckpt: Path | None = None
    """Backbone as save_longformer_ckpt.py wrote it; instead of converting --model_name_or_path anew."""
    max_token_num: int = 512
    """Tokens of a history that are read, the most recent items first."""
    max_attr_num: int = 3
    """Attributes of an item that are read."""
    max_attr_length: int = 32
    """Tokens of an attribute, name and value together."""
    attention_window: int = 64
    """Tokens that a token sees, both sides together; the first token sees and is seen by all."""
    pooler_type: Literal["cls", "mean"] | None = None
    """A text's vector: its first token's, or the mean over its tokens. By default what the backbone was trained for."""
    temp: float = 0.05
    """Cosine similarities are divided by this."""

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
            "attention_window": self.attention_window,
            "temp": self.temp,
        }
        return fixed if self.pooler_type is None else fixed | {"pooler_type": self.pooler_type}
