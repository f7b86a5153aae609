"""The architecture of a Recformer, as its `config.json` holds it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from functools import partial
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from seqrec.errors import UserError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}

MAX_LAYERS = 1000
BOUNDS = {
    "vocab_size": (1, 1 << 24),
    "hidden_size": (1, 1 << 16),
    "num_hidden_layers": (1, MAX_LAYERS),
    "num_attention_heads": (1, 1 << 10),
    "intermediate_size": (1, 1 << 18),
    "max_position_embeddings": (1, 1 << 20),
    "position_offset": (0, 1 << 20),
    "pad_token_id": (0, 1 << 24),
    "cls_token_id": (0, 1 << 24),
    "token_type_size": (4, 1 << 10),
    "max_item_embeddings": (2, 1 << 20),
    "max_token_num": (1, 1 << 20),
    "max_attr_num": (1, 1 << 10),
    "max_attr_length": (1, 1 << 20),
    "item_num": (0, 1 << 31),
}
"""Smallest and largest value of each size: far beyond any model there is, and far from what ends a machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecformerConfig:
    """Architecture of the encoder, with the field names of a Hugging Face `config.json`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    """Rows of the position table, `position_offset` included."""
    position_offset: int
    """Row of the first token's position: 2 in Longformer and RoBERTa, 0 in BERT."""
    pad_token_id: int
    cls_token_id: int
    """First token of every sequence."""
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    attention_window: tuple[int, ...] = ()
    """Window of each layer, both sides together; empty stands for 64 in every layer."""
    token_type_size: int = 4
    """Class token, attribute name, attribute value, padding."""
    max_item_embeddings: int = 51
    """The class token and the 50 most recent items."""
    max_token_num: int = 1024
    """Longest sequence, class token included."""
    max_attr_num: int = 3
    max_attr_length: int = 32
    """Tokens per attribute, name and value together."""
    pooler_type: Literal["cls", "mean"] = "cls"
    """A sequence's vector: that of its first token, or the mean over all of its tokens."""
    temp: float = 0.05
    """Cosine similarities are divided by this."""
    item_num: int = 0
    """Items of the catalogue, for an item table that is learnt."""
    architecture: Literal["longformer", "modernbert"] = "longformer"
    """Whose layers: Longformer's, which RoBERTa and BERT are turned into, or ModernBERT's."""
    full_attention_layers: tuple[int, ...] = ()
    """ModernBERT: the layers, from 0, in which every token sees all of its sequence."""
    rope_theta: float = 160_000.0
    """ModernBERT: base of the rotary positions in those layers."""
    local_rope_theta: float = 10_000.0
    """ModernBERT: base of the rotary positions in the other layers."""
    norm_bias: bool = True
    attention_bias: bool = True
    feed_forward_bias: bool = True

    def __post_init__(self) -> None:
        self._check_kinds()
        windows = tuple(self.attention_window) or (64,) * self.num_hidden_layers
        object.__setattr__(self, "attention_window", windows)
        object.__setattr__(self, "full_attention_layers", tuple(self.full_attention_layers))
        if len(windows) != self.num_hidden_layers or any(w < 2 or w % 2 for w in windows):
            raise UserError(
                f"attention_window must be {self.num_hidden_layers} even numbers, one per layer, got {windows}"
            )
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} attention heads"
            )
        if not isinstance(self.hidden_act, str) or self.hidden_act not in ACTIVATIONS:
            raise UserError(f"hidden_act must be one of {sorted(ACTIVATIONS)}, got {self.hidden_act!r:.80}")
        if self.pooler_type not in ("cls", "mean"):
            raise UserError(f"pooler_type must be 'cls' or 'mean', got {self.pooler_type!r:.80}")
        if self.architecture not in ("longformer", "modernbert"):
            raise UserError(f"architecture must be 'longformer' or 'modernbert', got {self.architecture!r:.80}")
        if any(not 0 <= layer < self.num_hidden_layers for layer in self.full_attention_layers):
            raise UserError(
                f"full_attention_layers must lie in 0 to {self.num_hidden_layers - 1}, got {self.full_attention_layers}"
            )
        if self.max_token_num + self.position_offset > self.max_position_embeddings:
            raise UserError(
                f"max_token_num {self.max_token_num} needs {self.max_token_num + self.position_offset} position "
                f"rows, max_position_embeddings is {self.max_position_embeddings}: convert the backbone again "
                "with Recformer/save_longformer_ckpt.py --max_token_num"
            )

    def _check_kinds(self) -> None:
        """Refuse a field of another type, or a size that no model has, before anything is made by it."""
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise UserError(f"{name} must be a whole number from {low:,} to {high:,}, got {value!r:.80}")
        for name in ("layer_norm_eps", "initializer_range", "temp", "rope_theta", "local_rope_theta"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise UserError(f"{name} must be a number above 0, got {value!r:.80}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < 1:
                raise UserError(f"{name} must be a number in [0, 1), got {value!r:.80}")
        for name in ("attention_window", "full_attention_layers"):
            value = getattr(self, name)
            if not isinstance(value, tuple | list) or any(type(part) is not int for part in value):
                raise UserError(f"{name} must be whole numbers, got {value!r:.80}")
        for name in ("norm_bias", "attention_bias", "feed_forward_bias"):
            if type(getattr(self, name)) is not bool:
                raise UserError(f"{name} must be true or false, got {getattr(self, name)!r:.80}")
        for name in ("pad_token_id", "cls_token_id"):
            if getattr(self, name) >= self.vocab_size:
                raise UserError(f"{name} must be below vocab_size, {self.vocab_size}, got {getattr(self, name)}")

    @classmethod
    def from_pretrained(cls, name_or_path: str, **changes: Any) -> "RecformerConfig":
        """Return the configuration of a backbone or of a saved Recformer, with some fields set; see `load_backbone`."""
        from Recformer.backbone import find_backbone, load_tokenizer, read_config

        folder = find_backbone(name_or_path)
        return read_config(folder, load_tokenizer(folder), **changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RecformerConfig":
        """Return the configuration in a mapping that may hold other keys as well.

        Raises:
            UserError: If one lacks a default and is missing, or a value is of no use.
        """
        names = {f.name for f in fields(cls)}
        missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in values]
        if missing:
            raise UserError(f"the configuration has no {', '.join(missing)}")
        return cls(**{name: value for name, value in values.items() if name in names})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        lists = {name: list(getattr(self, name)) for name in ("attention_window", "full_attention_layers")}
        return asdict(self) | lists | {"model_type": self.architecture}
