"""Reading and writing weights: files of tensors by name, never of code."""

from pathlib import Path

import torch

from seqrec.basics.errors import UserError
from seqrec.text.lora import merge_lora
from seqrec.text.weights import load_checkpoint, load_strictly


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load an encoder's weights in place; every parameter must be there, with its shape.

    Low-rank updates are added to the model's own weights, which are then to be those that they are updates of. Takes
    the bare encoder (`embeddings.*`, `encoder.*`) and any model around it (`longformer.*` beside
    `lm_head.*` or an item table, which are left out and logged).

    Args:
        model: The bare encoder.
        path: See `load_checkpoint`.

    Raises:
        UserError: If names or shapes don't fit; the message lists them.
    """
    state = load_checkpoint(path)
    if any(".lora_" in name for name in state) and any(tensor.is_meta for tensor in model.state_dict().values()):
        raise UserError(f"{path} holds low-rank updates, not the weights of a backbone: give it as --checkpoint")
    prefix = "longformer." if any(name.startswith("longformer.") for name in state) else ""
    state = merge_lora(state, {prefix + name: tensor for name, tensor in model.state_dict().items()})
    inner = {name.removeprefix("longformer."): value for name, value in state.items() if name.startswith("longformer.")}
    outside = [name for name in state if inner and not name.startswith("longformer.")]
    load_strictly(model, inner or state, str(path), outside)
