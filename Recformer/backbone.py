"""Backbones: finding a language model's files, and loading them as a Recformer with its tokenizer."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from Recformer.checkpoint import load_weights
from Recformer.config import read_config, read_source
from Recformer.conversion import convert
from Recformer.model import RecformerModel
from Recformer.pretraining import MlmPass, RecformerForPretraining
from seqrec.basics.errors import UserError
from seqrec.text.backbones import MINILM, find_backbone, load_tokenizer
from seqrec.text.weights import load_checkpoint, load_folder, load_strictly

log = logging.getLogger(__name__)


def load_backbone(
    model_name_or_path: str = MINILM, longformer_ckpt: Path | None = None, seed: int = 42, **changes: Any
) -> tuple[RecformerModel, Any]:
    """Return a Recformer with a language model's weights, and its tokenizer; its options are `model.config`.

    Args:
        model_name_or_path: `minilm`, a folder, or a model's name on the Hugging Face hub.
        longformer_ckpt: Weights that save_longformer_ckpt.py wrote; they are read instead of converting again. A
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
    untie_decoder: bool = False,
    seed: int = 42,
    **changes: Any,
) -> tuple[RecformerForPretraining, Any]:
    """Return a Recformer with its source's language-model head or a new one, and its tokenizer; see `load_backbone`.

    With `untie_decoder` the table that predicts words is the source's, or starts as a copy of the word embeddings.
    """
    encoder, head, tokenizer = _load(model_name_or_path, longformer_ckpt, seed, changes)
    model = RecformerForPretraining(encoder, mlm_pass, untie_decoder)
    own = model.lm_head.state_dict()
    found = {name.removeprefix("lm_head."): tensor for name, tensor in head.items()}
    if found:
        # ModernBERT's head has no biases but the last; new ones are zero. Few heads have a separate decoder.
        found = {name: own[name] for name in ("dense.bias", "layer_norm.bias", "decoder.weight") if name in own} | found
        missing = [name for name in own if name not in found or found[name].shape != own[name].shape]
        if missing:
            raise UserError(
                f"{model_name_or_path}: its language-model head lacks {', '.join(missing)}, or in this shape"
            )
        model.lm_head.load_state_dict({name: found[name] for name in own})
    decoder = found.get("decoder.weight")
    if not untie_decoder and decoder is not None and not torch.equal(decoder, encoder.word_embeddings.weight):
        log.info("lm_head.decoder.weight is not the word embeddings and is left out: --untie_decoder keeps it")
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
