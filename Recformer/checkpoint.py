"""Reading and writing weights: files of tensors by name, never of code."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from seqrec.basics.errors import UserError
from seqrec.text.lora import merge_lora
from seqrec.text.weights import load_checkpoint, load_strictly

POSITIONS = re.compile(r"(^|\.)embeddings\.position_embeddings\.weight$")
REDUNDANT = re.compile(r".*position_ids$|lm_head\.decoder\.bias$")
"""Tensors of published checkpoints that others determine: `add_published_names` writes them."""
BESIDE = ("item_bias", "repeat_score", "user_map", "centre", "whitening")
"""What finetuning item by item keeps beside the encoder."""
WORDS, DECODER = "longformer.embeddings.word_embeddings.weight", "lm_head.decoder.weight"


def add_published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with the further names that the published classes have, so that they load there strictly.

    These are the positions' numbers, and the decoder of a head: its weight is the word embeddings' where the head has
    no separate table, its bias is the head's.

    Args:
        state: Of the bare encoder, or of `RecformerForPretraining`, with or without its head.
    """
    numbers = {
        name.replace("position_embeddings.weight", "position_ids"): torch.arange(len(table))[None]
        for name, table in state.items()
        if POSITIONS.search(name)
    }
    if "lm_head.bias" not in state:
        return dict(state) | numbers
    decoder = {DECODER: state.get(DECODER, state[WORDS]), "lm_head.decoder.bias": state["lm_head.bias"]}
    return dict(state) | numbers | decoder


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load an encoder's weights in place; every parameter must be there, with its shape.

    Low-rank updates are added to the model's weights, which must be those before the updates. Takes
    the bare encoder (`embeddings.*`, `encoder.*`) and any model around it (`longformer.*` beside
    `lm_head.*` or an item table, which are left out and logged); what finetuning item by item learns is left out.

    Args:
        model: The bare encoder.
        path: See `load_checkpoint`.

    Raises:
        UserError: If names or shapes don't fit; the message lists them.
    """
    state = {name: value for name, value in load_checkpoint(path).items() if name not in BESIDE}
    if any(".lora_" in name for name in state) and any(tensor.is_meta for tensor in model.state_dict().values()):
        raise UserError(f"{path} holds low-rank updates, not the weights of a backbone: give it as --checkpoint")
    prefix = "longformer." if any(name.startswith("longformer.") for name in state) else ""
    state = merge_lora(state, {prefix + name: tensor for name, tensor in model.state_dict().items()})
    inner = {name.removeprefix("longformer."): value for name, value in state.items() if name.startswith("longformer.")}
    outside = [name for name in state if inner and not name.startswith("longformer.")]
    load_strictly(model, inner or state, str(path), outside)
