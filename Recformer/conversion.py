"""A Recformer's weights from those of a Longformer, RoBERTa, BERT or ModernBERT.

What a source lacks is made from what it has: the global attention's projections are copies of the local ones,
missing positions repeat the learnt ones, all token types start as the source's first. These are the steps by
which Longformer was made from RoBERTa. Only the item positions are new: normal, from a seed.
Source: Beltagy et al. (2020), section 5, https://arxiv.org/abs/2004.05150.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from Recformer.checkpoint import REDUNDANT
from Recformer.config import MODERN, RecformerConfig
from Recformer.model import RecformerModel
from seqrec.basics.errors import UserError

PREFIXES = re.compile(r"^(longformer|roberta|bert|model)\.")
RENAMED = (
    (re.compile(r"\.gamma$"), ".weight"),
    (re.compile(r"\.beta$"), ".bias"),
    (re.compile(r"^cls\.predictions\.transform\.LayerNorm\."), "lm_head.layer_norm."),
    (re.compile(r"^cls\.predictions\.(transform\.)?"), "lm_head."),
)
RENAMED_MODERN = (
    (re.compile(r"^embeddings\.tok_embeddings\."), "embeddings.word_embeddings."),
    (re.compile(r"^embeddings\.norm\."), "embeddings.LayerNorm."),
    (re.compile(r"^layers\.(\d+)\.attn_norm\."), r"encoder.layer.\1.attention_norm."),
    (re.compile(r"^layers\.(\d+)\.attn\.Wqkv\."), r"encoder.layer.\1.qkv."),
    (re.compile(r"^layers\.(\d+)\.attn\.Wo\."), r"encoder.layer.\1.attention_out."),
    (re.compile(r"^layers\.(\d+)\.mlp_norm\."), r"encoder.layer.\1.feed_forward_norm."),
    (re.compile(r"^layers\.(\d+)\.mlp\.Wi\."), r"encoder.layer.\1.feed_forward_in."),
    (re.compile(r"^layers\.(\d+)\.mlp\.Wo\."), r"encoder.layer.\1.feed_forward_out."),
    (re.compile(r"^head\.norm\."), "lm_head.layer_norm."),
    (re.compile(r"^head\."), "lm_head."),
    (re.compile(r"^decoder\.bias$"), "lm_head.bias"),
    (re.compile(r"^decoder\.weight$"), "lm_head.decoder.weight"),
)
LEFT_OUT = re.compile(r"pooler\.|cls\.seq_relationship\.|classifier\.|item_embedding\.")


@dataclass(frozen=True, slots=True)
class Conversion:
    """Weights of a Recformer, and where each comes from."""

    state: dict[str, Tensor]
    """All parameters of the encoder, by name."""
    head: dict[str, Tensor]
    """The source's masked-language-model head as `lm_head.*`, empty where it has none."""
    copied: list[str] = field(default_factory=list)
    """Parameters taken over unchanged."""
    made: dict[str, str] = field(default_factory=dict)
    """Parameters made here, and how."""
    left_out: list[str] = field(default_factory=list)
    """Tensors of the source that an encoder has no place for."""

    def summary(self) -> str:
        """Return the report as lines of text."""
        lines = [f"{len(self.copied)} tensors copied"]
        lines += [f"{name}: {how}" for name, how in self.made.items() if "_global" not in name]
        if twins := [name for name in self.made if "_global" in name]:
            lines.append(f"{len(twins)} tensors of the global attention: copied from their local twins")
        if self.head:
            lines.append(f"{len(self.head)} tensors of the language-model head kept")
        if self.left_out:
            lines.append(f"left out: {', '.join(self.left_out)}")
        return "\n".join(lines)


def convert(source: Mapping[str, Tensor], config: RecformerConfig, seed: int = 42) -> Conversion:
    """Return a Recformer's weights from those of a Longformer, RoBERTa or BERT.

    Args:
        source: Tensors by name, of the bare encoder or of a model around it.
        config: Of the Recformer.
        seed: Of the item positions.

    Raises:
        UserError: If a parameter can be neither copied nor made, or the source holds tensors of another kind.
    """
    renamed = {_rename(name): tensor for name, tensor in source.items()}
    named = {name: tensor for name, tensor in renamed.items() if not REDUNDANT.match(name)}
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in RecformerModel(config).state_dict().items()}
    head = {name: tensor for name, tensor in named.items() if name.startswith("lm_head.")}
    rest = [name for name in named if name not in wanted and name not in head]
    out = Conversion({}, head, left_out=[name for name in rest if LEFT_OUT.match(name)])
    problems = [f"{name} is of no use" for name in rest if not LEFT_OUT.match(name)]
    for name, shape in wanted.items():
        tensor = named.get(name)
        if tensor is not None and tensor.shape == shape:
            out.state[name] = tensor.clone()
            out.copied.append(name)
            continue
        made = _make(name, shape, named, config, seed)
        if made is None:
            problems.append(f"{name} should be {tuple(shape)}, got {None if tensor is None else tuple(tensor.shape)}")
        else:
            out.state[name], out.made[name] = made
    if problems:
        raise UserError(
            f"the weights are not those of a Longformer, RoBERTa or BERT under this configuration: "
            f"{'; '.join(problems[:6])}{' and more' if len(problems) > 6 else ''}"
        )
    return out


def _make(
    name: str, shape: torch.Size, named: Mapping[str, Tensor], config: RecformerConfig, seed: int
) -> tuple[Tensor, str] | None:
    """Return a parameter that the source lacks or has in another shape, and how it was made."""
    if "_global." in name:
        local = named.get(name.replace("_global.", "."))
        return None if local is None or local.shape != shape else (local.clone(), "copied from its local twin")
    table = named.get(name)
    if name == "embeddings.item_position_embeddings.weight" and table is None:
        generator = torch.Generator().manual_seed(seed)
        std = config.initializer_range
        return torch.normal(0.0, std, shape, generator=generator), f"new, normal(0, {std}) from seed {seed}"
    if name == "embeddings.token_type_embeddings.weight" and config.architecture == MODERN:
        return torch.zeros(shape), "new, zeros"
    if table is None or table.shape[1:] != shape[1:]:
        return None
    if name == "embeddings.token_type_embeddings.weight":
        return table[:1].repeat(shape[0], 1), f"row 0 of {len(table)} in all {shape[0]} rows"
    needed = config.max_token_num + config.position_offset
    if name == "embeddings.position_embeddings.weight" and config.position_offset < len(table) < shape[0] == needed:
        offset, learnt = config.position_offset, len(table) - config.position_offset
        at = torch.arange(shape[0])
        rows = torch.where(at < offset, at, offset + (at - offset) % learnt)
        return table[rows], f"{learnt} learnt positions repeated up to {shape[0] - offset}"
    return None


def _rename(name: str) -> str:
    name = PREFIXES.sub("", name)
    for pattern, replacement in (*RENAMED, *RENAMED_MODERN):
        name = pattern.sub(replacement, name)
    return name
