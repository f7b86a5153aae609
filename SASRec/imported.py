"""Weights of published SASRec code under the names of this one. Shapes: N items, D width, L positions.

Sources: the state dicts of https://github.com/pmixer/SASRec.pytorch and of the code published with Qu et al. (2024),
https://arxiv.org/abs/2404.08796. There, histories are padded on the left, padding takes part in attention and its item
vector may be non-zero: scores of histories shorter than L differ here, where nothing is padded.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from SASRec.model import SASRecConfig
from SASRec.module import SASRecModule
from SASRec.options import Config
from seqrec.basics.errors import UserError

__all__ = ["HEADS", "Config", "Module", "read_weights"]
Module = SASRecModule
HEADS = 1
"""Attention heads of the published runs; a state dict does not say."""
NORMS = {
    "last_norm": "last_layernorm",
    "blocks.{}.attention_norm": "attention_layernorms.{}",
    "blocks.{}.feed_forward_norm": "forward_layernorms.{}",
}
LINEAR = {
    "blocks.{}.attention_out": "attention_layers.{}.out_proj",
    "blocks.{}.feed_forward.0": "forward_layers.{}.conv1",
    "blocks.{}.feed_forward.3": "forward_layers.{}.conv2",
}


def read_weights(state: Mapping[str, Tensor], num_heads: int) -> tuple[SASRecConfig, dict[str, Tensor]]:
    """Return the architecture, and the weights as `SASRec` names them.

    Args:
        state: `item_emb.weight` (N+1, D), `pos_emb.weight` (L, D), or (L+1, D) with a first row of zeros, and so on.
        num_heads: Attention heads.

    Raises:
        UserError: If a tensor is missing.
    """
    blocks = sum(name.startswith("attention_layernorms.") and name.endswith(".weight") for name in state)
    try:
        positions = state["pos_emb.weight"]
        if not positions[0].any():  # of padding, in later versions
            positions = positions[1:]
        found = {"item_embedding.weight": state["item_emb.weight"], "position_embedding.weight": positions}
        for block in range(blocks):
            for kind in ("weight", "bias"):
                projections = state[f"attention_layers.{block}.in_proj_{kind}"].chunk(3)
                found[f"blocks.{block}.query.{kind}"] = projections[0]
                found[f"blocks.{block}.key_value.{kind}"] = torch.cat(projections[1:])
        for ours, theirs in (NORMS | LINEAR).items():
            for block in range(blocks if "{}" in ours else 1):
                for kind in ("weight", "bias"):
                    tensor = state[f"{theirs.format(block)}.{kind}"]
                    # A convolution of width 1 is a linear layer: (D, D, 1).
                    found[f"{ours.format(block)}.{kind}"] = tensor.flatten(1) if tensor.dim() == 3 else tensor
    except KeyError as error:
        raise UserError(f"the weights lack {error}, which a published SASRec has; they hold {_some(state)}") from error
    length, width = positions.shape
    config = SASRecConfig(hidden_units=width, num_blocks=blocks, num_heads=num_heads, maxlen=length)
    return config, found


def _some(state: Mapping[str, Tensor]) -> str:
    return ", ".join(list(state)[:6])
