"""Low-rank updates of the encoder's projections with `peft`, and merging them into plain weights.

Shapes: a projection W is (out, in), its update (alpha / r) B A with B (out, r) and A (r, in).
Source: Hu et al. (2022), https://arxiv.org/abs/2106.09685.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from seqrec.basics.errors import UserError
from seqrec.text.options import LoraOptions

SCALE = "lora_scale"
"""Name under which a checkpoint keeps alpha / r."""
ALWAYS_TRAINED = ("item_position_embeddings", "token_type_embeddings")
"""Parameters that language models do not have."""
_FACTOR = re.compile(r"^(?P<layer>.*)\.lora_(?P<side>[AB])\.default\.weight$")


def add_lora(model: nn.Module, encoder: nn.Module, options: LoraOptions) -> None:
    """Add low-rank updates to an encoder's projections, in place; of the encoder only they and new parameters train.

    Args:
        model: The encoder or a model around it; what lies outside the encoder stays trainable.
        encoder: Part of the model.
        options: With `lora_r` above 0; without targets all projections get an update.

    Raises:
        UserError: If a target names no projection of the encoder.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = {name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)}
    ends = {name.rpartition(".")[2] for name in names}
    wanted = set(options.lora_targets) or ends
    if unknown := wanted - ends:
        raise UserError(f"--lora_targets {sorted(unknown)} are no projections of the encoder, which has {sorted(ends)}")
    targets = [name for name in names if name.rpartition(".")[2] in wanted]
    config = LoraConfig(
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=targets,
    )
    inject_adapter_in_model(config, encoder)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("lora_" in name or any(part in name for part in ALWAYS_TRAINED))
    model.register_buffer(SCALE, torch.tensor(options.lora_alpha / options.lora_r))


def effective_weight(layer: nn.Linear) -> Tensor:
    """Return a projection's (out, in) weight, with its update if it has one."""
    weight: Tensor = layer.weight
    factors = getattr(layer, "lora_A", None)
    if factors is None:
        return weight
    update: Tensor = layer.lora_B["default"].weight @ layer.lora_A["default"].weight  # type: ignore[index, union-attr]
    return weight + layer.scaling["default"] * update  # type: ignore[index]


def drop_frozen(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the trainable part of a state dict: for a model with updates, the updates."""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in state.items() if name not in frozen}


def merge_lora(state: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Merge the updates of a state dict into plain weights; return any other state dict unchanged.

    Args:
        state: Of a model with updates, with or without the weights that they update.
        base: The weights before training, by their plain names.

    Raises:
        UserError: If an update is of a weight that the base does not have, or the scale is missing.
    """
    factors: dict[str, dict[str, Tensor]] = {}
    plain: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = _FACTOR.match(name)
        if match:
            factors.setdefault(match["layer"], {})[match["side"]] = tensor
        elif name.rpartition(".")[2] != SCALE:
            plain[name.replace(".base_layer.", ".")] = tensor
    if not factors:
        return dict(state)
    scale = next((tensor for name, tensor in state.items() if name.rpartition(".")[2] == SCALE), None)
    unknown = [layer for layer, pair in factors.items() if not _fits(pair, base.get(f"{layer}.weight"))]
    if scale is None or scale.numel() != 1 or unknown:
        raise UserError(
            f"the low-rank updates do not fit: no {SCALE}"
            if scale is None or scale.numel() != 1
            else f"no weights for {', '.join(unknown[:5])}, or of another shape"
        )
    merged = dict(base) | plain
    for layer, pair in factors.items():
        merged[f"{layer}.weight"] = base[f"{layer}.weight"] + scale * (pair["B"] @ pair["A"])
    return merged


def _fits(pair: Mapping[str, Tensor], weight: Tensor | None) -> bool:
    """Return whether B (out, r) and A (r, in) are there and update an (out, in) weight."""
    if weight is None or len(pair) < 2 or any(factor.ndim != 2 for factor in pair.values()):
        return False
    return pair["B"].shape[1] == pair["A"].shape[0] and (len(pair["B"]), pair["A"].shape[1]) == tuple(weight.shape)
