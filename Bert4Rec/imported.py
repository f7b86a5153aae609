"""Weights of the published BERT4Rec code under the names of this one. Shapes: N items, D width, L positions.

Source: the state dict of the code published with Qu et al. (2024), https://arxiv.org/abs/2404.08796. Its item table has
rows for padding, the N items and the mask; its output layer scores padding and the N items.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from Bert4Rec.model import Bert4RecConfig
from Bert4Rec.module import Bert4RecModule
from Bert4Rec.options import Config
from seqrec.basics.errors import UserError

__all__ = ["HEADS", "Config", "Module", "read_weights"]
Module = Bert4RecModule
HEADS = 4
"""Attention heads of the published runs; a state dict does not say."""
BLOCK = "bert.transformer_blocks.{}."
LINEAR = {
    "query": "attention.linear_layers.0",
    "attention_out": "attention.output_linear",
    "feed_forward_in": "feed_forward.w_1",
    "feed_forward_out": "feed_forward.w_2",
}
NORMS = {"attention_norm": "input_sublayer.norm", "feed_forward_norm": "output_sublayer.norm"}


def read_weights(state: Mapping[str, Tensor], num_heads: int) -> tuple[Bert4RecConfig, dict[str, Tensor]]:
    """Return the architecture, and the weights as `Bert4Rec` names them.

    Args:
        state: `bert.embedding.token.weight` (N+2, D), `bert.embedding.position.pe.weight` (L, D), and so on.
        num_heads: Attention heads.

    Raises:
        UserError: If a tensor is missing.
    """
    blocks = sum(name.endswith(".attention.output_linear.weight") for name in state)
    try:
        table, positions = state["bert.embedding.token.weight"], state["bert.embedding.position.pe.weight"]
        found = {
            "item_embedding.weight": table[:-1],
            "mask_embedding": table[-1],
            "position_embedding.weight": positions,
            "output_embedding.weight": state["out.weight"],
            "output_bias": state["out.bias"][:, None],
        }
        for block in range(blocks):
            theirs, ours = BLOCK.format(block), f"blocks.{block}."
            for kind, deviation in (("weight", "a_2"), ("bias", "b_2")):
                for name, source in LINEAR.items():
                    found[f"{ours}{name}.{kind}"] = state[f"{theirs}{source}.{kind}"]
                key_value = [state[f"{theirs}attention.linear_layers.{number}.{kind}"] for number in (1, 2)]
                found[f"{ours}key_value.{kind}"] = torch.cat(key_value)
                for name, source in NORMS.items():
                    found[f"{ours}{name}.{kind}"] = state[f"{theirs}{source}.{deviation}"]
    except KeyError as error:
        held = ", ".join(list(state)[:6])
        raise UserError(f"the weights lack {error}, which a published BERT4Rec has; they hold {held}") from error
    length, width = positions.shape
    config = Bert4RecConfig(width, blocks, num_heads, maxlen=length, architecture="published")
    return config, found
