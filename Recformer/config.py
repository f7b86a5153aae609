"""The architecture of a Recformer, as its `config.json` holds it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from seqrec.basics.errors import UserError
from seqrec.basics.opening import check_field, read_json_object
from seqrec.basics.precision import Precision
from seqrec.text.backbones import find_backbone, load_tokenizer, was_trained_on_means
from seqrec.text.options import EmptyAttributes, Pooling

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}
MAX_LAYERS = 1000
MODERN = "modernbert"
"""Model type whose layers Recformer keeps as they are."""
ROBERTA_LIKE = ("longformer", "roberta", "xlm-roberta", "camembert")  # their positions start after the padding's id
ROPES = ("full_attention", "sliding_attention")
MODEL_TYPES = ("bert", MODERN, *ROBERTA_LIKE)
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
"""Smallest and largest value of each size: beyond any existing model, but within a machine's memory."""


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
    empty_attributes: EmptyAttributes = "drop"
    """Attributes without text: drop (they are not read) or keep (their name is read, and counts)."""
    pooler_type: Pooling = "cls"
    """Pooling: cls (the first token's vector), mean (over all tokens), recency (over items, by how recent they are) or
    items (the same of items that are read one by one)."""
    item_decay: float = 0.5
    """Of recency and items, what an item weighs beside the next."""
    temp: float = 0.05
    """Temperature: cosine similarities are divided by it."""
    item_num: int = 0
    """Number of items, for a trainable item table."""
    architecture: Literal["longformer", "modernbert"] = "longformer"
    """Layers: longformer (also for converted RoBERTa and BERT) or modernbert."""
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
        if self.pooler_type not in get_args(Pooling):
            raise UserError(f"pooler_type must be one of {', '.join(get_args(Pooling))}, got {self.pooler_type!r:.80}")
        if self.empty_attributes not in get_args(EmptyAttributes):
            raise UserError(f"empty_attributes must be 'drop' or 'keep', got {self.empty_attributes!r:.80}")
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
        """Refuse a field of another type, or a size out of its range, before it is used."""
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise UserError(f"{name} must be a whole number from {low:,} to {high:,}, got {value!r:.80}")
        for name in ("layer_norm_eps", "initializer_range", "temp", "item_decay", "rope_theta", "local_rope_theta"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise UserError(f"{name} must be a number above 0, got {value!r:.80}")
        if self.item_decay > 1:
            raise UserError(f"item_decay must be at most 1, got {self.item_decay!r:.80}")
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
        folder = find_backbone(name_or_path)
        return read_config(folder, load_tokenizer(folder), **changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RecformerConfig":
        """Return the configuration in a mapping that may hold other keys as well.

        `attention_window` may be one number for all layers.

        Raises:
            UserError: If one lacks a default and is missing, or a value is of no use.
        """
        names = {f.name for f in fields(cls)}
        missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in values]
        if missing:
            raise UserError(f"the configuration has no {', '.join(missing)}")
        given = {name: value for name, value in values.items() if name in names}
        if type(window := given.get("attention_window")) is int:
            given["attention_window"] = (window,) * given["num_hidden_layers"]
        return cls(**given)

    @property
    def text_limits(self) -> tuple[int, int, EmptyAttributes]:
        """What decides an item's tokens: see `seqrec.text.tokens.tokenize_items`."""
        return self.max_attr_num, self.max_attr_length, self.empty_attributes

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        lists = {name: list(getattr(self, name)) for name in ("attention_window", "full_attention_layers")}
        return asdict(self) | lists | {"model_type": self.architecture}


def read_config(folder: Path, tokenizer: Any, **changes: Any) -> RecformerConfig:
    """Return the configuration of a Recformer with a folder's backbone.

    The position table grows to what `max_token_num` needs. Without a `pooler_type`, a sentence encoder that was
    trained on the mean of its tokens keeps the mean, and every other backbone takes the first token.

    Args:
        folder: Holds config.json.
        tokenizer: The folder's.
        **changes: See `load_backbone`.
    """
    source = read_source(folder)
    kind = source["model_type"]
    converted = "position_offset" in source  # save_longformer_ckpt.py wrote it
    if not converted and kind == MODERN:
        source |= _read_modern(source)
    if not converted:
        source["pad_token_id"] = _whole(source.get("pad_token_id", tokenizer.pad_token_id), "pad_token_id", folder)
        source["position_offset"] = source["pad_token_id"] + 1 if kind in ROBERTA_LIKE else 0
        if kind != MODERN:
            source["attention_window"] = 64
        source["pooler_type"] = "mean" if was_trained_on_means(folder) else "cls"
        source.setdefault("max_token_num", 1024)
    values = source | {"cls_token_id": tokenizer.cls_token_id} | changes
    rows = sum(_whole(values.get(name), name, folder) for name in ("max_token_num", "position_offset"))
    if not converted:
        values["max_position_embeddings"] = max(source["max_position_embeddings"], rows)
    try:
        return RecformerConfig.from_dict(values)
    except UserError as error:
        raise UserError(f"{folder / 'config.json'}: {error}") from error


def read_source(folder: Path) -> dict[str, Any]:
    """Return what config.json says of a backbone, whose kind and sizes are such as Recformer can read.

    Raises:
        UserError: If it is damaged, of another kind, or has a size that no model has.
    """
    file, repair = folder / "config.json", "download the model again"
    source = read_json_object(file, repair, {"model_type": str}, finite=True)
    kind = source["model_type"]
    if kind not in MODEL_TYPES or source.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(
            f"{folder} holds a model of type {kind!r:.80}, expected one of {list(MODEL_TYPES)} with absolute positions"
        )
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        check_field(source, name, (int,), file, repair)
    check_field(source, "max_position_embeddings", (int,), file, repair)
    if not 1 <= source["num_hidden_layers"] <= MAX_LAYERS:
        raise UserError(
            f"{file}: num_hidden_layers is {source['num_hidden_layers']}, expected 1 to {MAX_LAYERS}: {repair}"
        )
    return source


def _whole(value: Any, name: str, folder: Path) -> int:
    if type(value) is not int:
        raise UserError(f"{folder / 'config.json'}: {name} is {value!r:.80}, expected a whole number")
    return value


def _read_modern(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a Recformer's configuration from a ModernBERT's, as today's or as older files hold them."""
    layers = range(source["num_hidden_layers"])
    every = source.get("global_attn_every_n_layers", 3)
    kinds = source.get("layer_types") or []
    if not kinds and type(every) is int and every > 0:
        kinds = ["sliding" if index % every else "full_attention" for index in layers]
    ropes = source.get("rope_parameters") or {}
    nested = isinstance(ropes, dict) and all(isinstance(ropes.get(key, {}), dict) for key in ROPES)
    if type(every) is not int or every < 1 or not isinstance(kinds, list) or len(kinds) != len(layers) or not nested:
        raise UserError(
            f"layer_types is {kinds!r:.80}, global_attn_every_n_layers {every!r:.80}, rope_parameters {ropes!r:.80}: "
            f"expected a kind for each of {len(layers)} layers, or a whole number from 1, and an object of objects: "
            "download the model again"
        )
    theta = {
        name: ropes.get(key, {}).get("rope_theta", source.get(old, default))
        for name, key, old, default in (
            ("rope_theta", "full_attention", "global_rope_theta", 160_000.0),
            ("local_rope_theta", "sliding_attention", "local_rope_theta", 10_000.0),
        )
    }
    return theta | {
        "architecture": MODERN,
        "full_attention_layers": tuple(index for index in layers if kinds[index] == "full_attention"),
        "attention_window": source.get("local_attention", 128),
        "layer_norm_eps": source.get("norm_eps", 1e-5),
        "hidden_act": source.get("hidden_activation", "gelu"),
        "hidden_dropout_prob": source.get("mlp_dropout", 0.0),
        "attention_probs_dropout_prob": source.get("attention_dropout", 0.0),
        "norm_bias": source.get("norm_bias", False),
        "attention_bias": source.get("attention_bias", False),
        "feed_forward_bias": source.get("mlp_bias", False),
    }


def encoding_options(config: RecformerConfig, name_or_path: str, precision: Precision) -> dict[str, Any]:
    """Return the options that, beside the weights, decide an item's vector."""
    keys = ("max_attr_num", "max_attr_length", "max_token_num", "attention_window", "pooler_type")
    options = {"backbone": name_or_path, "precision": precision} | {key: getattr(config, key) for key in keys}
    return options if config.empty_attributes == "drop" else options | {"empty_attributes": config.empty_attributes}
