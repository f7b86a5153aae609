"""A language model of `transformers`, or some of its blocks, on ragged batches of texts.

The modules are the library's own. Tokens of all texts are given to them as one long row, so that embeddings,
projections and norms see no padding; attention is a function of ours that the library calls.
A model cut in two computes what the whole one does, to the bit.

Shapes: T tokens of a batch, B texts, D width, H heads of queries, G heads of keys and values, E width of a head.
"""

import copy
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seqrec.basics.errors import UserError
from seqrec.text.reading import Reading
from seqrec.text.weight_files import WeightFiles

ATTENTION = "seqrec_ragged"
"""Name of our attention function in the library."""
PREFIXES = ("model.", "bert.", "roberta.", "opt.")
"""Of the weights of models with a head, beside which a checkpoint may keep the model."""


class _Skip(nn.Module):
    """Stands for a block of another range, and passes its input on."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        if hasattr(block, "attention_type"):
            self.attention_type = block.attention_type

    def forward(self, states: Tensor, *_: Any, **__: Any) -> Tensor:
        return states


class _Through(nn.Module):
    """Stands for the embeddings where states are given."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Tensor:
        return inputs_embeds


class _Zero(nn.Module):
    """Stands for a table of positions where states are given, which have them already."""

    def forward(self, mask: Tensor, *_: Any, **__: Any) -> Tensor:
        return mask.new_zeros(())


class Family(NamedTuple):
    """Where a kind of model keeps its parts."""

    layers: str
    """Path of its list of blocks."""
    norm: str | None
    """Path of the norm after the last block."""
    first_stage: Mapping[str, type[nn.Module] | None]
    """Paths of what precedes the blocks even where states are given, and what takes their place there."""
    unused: tuple[str, ...] = ()
    """Paths of what follows the states of the last block."""
    learned_positions: bool = False
    """Whether positions have a table, so that texts may not be longer."""


_ROTARY = Family("layers", "norm", {})
_BERT = Family("encoder.layer", None, {"embeddings": _Through}, learned_positions=True)
FAMILIES = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "modernbert": Family("layers", "final_norm", {"embeddings": _Through}),
    "opt": Family(
        "decoder.layers",
        "decoder.final_layer_norm",
        {"decoder.embed_positions": _Zero, "decoder.project_in": None},
        ("decoder.project_out",),
        learned_positions=True,
    ),
    "llama": _ROTARY,
    "mistral": _ROTARY,
    "qwen2": _ROTARY,
    "qwen3": _ROTARY,
}
"""By `model_type` of the configuration."""


_reading: ContextVar[Reading] = ContextVar("reading")


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return the reading's (1, T, H, E) attention, as `transformers` wants it, from (1, H or G, T, E)."""
    if unknown := [name for name in ("softcap", "s_aux") if options.get(name) is not None]:
        raise UserError(f"this language model's attention has {unknown[0]}, which is not supported: give another")
    reading = _reading.get()
    if sliding_window is not None and reading.longest > sliding_window:
        raise UserError(
            f"this language model attends to {sliding_window} tokens, and is given {reading.longest}: shorten "
            "--tokenized_len or --maxlen"
        )
    block, causal = int(module.layer_idx), bool(module.is_causal)  # type: ignore[arg-type]
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return reading.attend(block, q, k, v, causal=causal, scale=scaling, dropout=dropout)[None], None


class Architecture:
    """A model's configuration, what is read from it, and the folder of its weights, if it has any."""

    def __init__(self, config: Any, folder: Path | None = None) -> None:
        """Take a configuration of `transformers`, of one of `FAMILIES`."""
        self.config, self.folder = config, folder
        self.family = FAMILIES[config.model_type]

    @classmethod
    def read(cls, folder: Path) -> "Architecture":
        """Read the configuration of a folder.

        Raises:
            UserError: If it is of a kind that is not supported, or damaged.
        """
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(folder)
        except Exception as error:  # its readers raise errors of every kind for a damaged file
            said = " ".join(str(error).split())[:160] or type(error).__name__
            raise UserError(f"{folder}/config.json can't be read ({said}): download the model again") from error
        kind = config.model_type
        if kind not in FAMILIES or getattr(config, "is_encoder_decoder", False):
            raise UserError(
                f"{folder} is a model of type {kind!r}, expected one of {', '.join(sorted(FAMILIES))}: give another "
                "--plm_name"
            )
        return cls(config, folder)

    def shortened(self, count: int | None, flag: str) -> "Architecture":
        """Return the model of the first blocks alone, with the norm that follows the last of all; None for all blocks.

        Raises:
            UserError: If there are not so many.
        """
        if count is None:
            return self
        if not 1 <= count <= self.num_blocks:
            raise UserError(f"{flag} must be 1 to {self.num_blocks}, the model's blocks, got {count}")
        config = copy.deepcopy(self.config)
        config.num_hidden_layers = count
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:count]
        return Architecture(config, self.folder)

    @property
    def is_causal(self) -> bool:
        """Whether it is a decoder."""
        return self.config.model_type not in ("bert", "roberta", "xlm-roberta", "modernbert")

    @property
    def num_blocks(self) -> int:
        """N."""
        return int(self.config.num_hidden_layers)

    @property
    def width(self) -> int:
        """D, the width of the states between blocks."""
        return int(self.config.hidden_size)

    @property
    def word_width(self) -> int:
        """Width of the word embeddings."""
        return int(getattr(self.config, "word_embed_proj_dim", self.config.hidden_size))

    @property
    def kv_shape(self) -> tuple[int, int]:
        """(G, E)."""
        heads = self.config.num_attention_heads
        width = getattr(self.config, "head_dim", None) or self.config.hidden_size // heads
        return int(getattr(self.config, "num_key_value_heads", None) or heads), int(width)

    @property
    def position_offset(self) -> int:
        """Position of a text's first token in the model's own count."""
        return self.config.pad_token_id + 1 if self.config.model_type in ("roberta", "xlm-roberta") else 0

    @property
    def longest(self) -> int | None:
        """Most tokens of a text, prefix included; None if there is no limit."""
        limit = int(self.config.max_position_embeddings) - self.position_offset
        return limit if self.family.learned_positions else None

    def weight_files(self) -> WeightFiles:
        """Return the folder's weights."""
        assert self.folder is not None
        return WeightFiles(self.folder, PREFIXES)


class Blocks(nn.Module):
    """Blocks `first` to `last - 1` of a language model; the norm after them belongs to the last of all.

    Parameters have their names in the whole model, with the block's number there.
    """

    def __init__(
        self,
        architecture: Architecture,
        first: int,
        last: int,
        pooler: bool = False,
        embeddings: bool | None = None,
    ) -> None:
        """Build the modules on the meta device.

        Args:
            architecture: Of the whole model.
            first: First block.
            last: One past the last block.
            pooler: Keep the pooler of a BERT.
            embeddings: Begin with the embeddings, which need not be followed by a block; by default if first is 0.

        Raises:
            UserError: If there is no such range.
        """
        super().__init__()
        N = architecture.num_blocks
        self.has_embeddings = first == 0 if embeddings is None else embeddings
        if (
            not 0 <= first <= last <= N
            or (first == last and not self.has_embeddings)
            or (first and self.has_embeddings)
        ):
            raise UserError(f"blocks {first} to {last} are no range of the model's {N}")
        from transformers import AttentionInterface, AutoModel

        AttentionInterface.register(ATTENTION, _attend)
        with torch.device("meta"):
            model = AutoModel.from_config(architecture.config, attn_implementation=ATTENTION)
        family = architecture.family
        layers = model.get_submodule(family.layers)
        for number in (*range(first), *range(last, N)):
            layers[number] = _Skip(layers[number])
        if not self.has_embeddings:
            _replace(model, _path_of_words(model), None)
            for path, stand_in in family.first_stage.items():
                _replace(model, path, None if stand_in is None else stand_in())
        if last < N and family.norm is not None and _has(model, family.norm):
            _replace(model, family.norm, nn.Identity())
        for path in family.unused:
            _replace(model, path, None)
        if hasattr(model, "pooler") and not (pooler and last == N):
            model.pooler = None
        _make_buffers(model, architecture.config)
        self.model, self.architecture, self.first, self.last = model, architecture, first, last

    @property
    def layers(self) -> list[tuple[int, nn.Module]]:
        """Return the blocks of the range with their numbers."""
        found = self.model.get_submodule(self.architecture.family.layers)
        return [(number, found[number]) for number in range(self.first, self.last)]

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Return the table that turns token ids into vectors; a range without the embeddings has none."""
        table: nn.Embedding = self.model.get_input_embeddings()
        return table

    def first_stage_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of what precedes block 0."""
        if not self.has_embeddings:
            return []
        parts = [*self.architecture.family.first_stage, _path_of_words(self.model)]
        there = [self.model.get_submodule(path) for path in parts if _has(self.model, path)]
        return [parameter for part in there for parameter in part.parameters()]

    def recompute(self) -> "Blocks":
        """Keep of each block in training its input alone, compute it again for the gradients, and return itself."""
        for _, layer in self.layers:
            layer.forward = _recomputed(layer)
        return self

    def drop_words(self) -> "Blocks":
        """Give up the table of word embeddings, where vectors come in place of words, and return itself."""
        _replace(self.model, _path_of_words(self.model), None)
        return self

    def draw(self) -> "Blocks":
        """Draw weights as the library does for a new model, and return itself, in training mode."""
        from transformers import AutoModel

        drawn = AutoModel.from_config(self.architecture.config).state_dict()
        self.model.load_state_dict({name: drawn[name] for name in self.model.state_dict()}, assign=True)
        return self.train()

    def load(self, weights: WeightFiles, dtype: torch.dtype = torch.float32) -> "Blocks":
        """Read the weights of the range from files, and return itself, in evaluation mode.

        Raises:
            UserError: If a tensor is missing or of another shape.
        """
        own = self.model.state_dict()
        found = weights.read(own, dtype)
        if odd := [name for name, tensor in found.items() if tensor.shape != own[name].shape]:
            raise UserError(f"{weights.folder}: {', '.join(odd[:6])} have other shapes than config.json says")
        self.model.load_state_dict(found, assign=True)
        return self.eval()

    def forward(self, inputs: Tensor, reading: Reading) -> Tensor:
        """Return the (T, D) states after the last block of the range.

        Args:
            inputs: (T,) int64 token ids, (T, word width) vectors in place of word embeddings, or, for a range
                without the embeddings, (T, D) states before its first block.
            reading: How the batch is read; inputs are in the order of its tokens.
        """
        positions = reading.positions + self.architecture.position_offset
        given: dict[str, Any] = {"input_ids" if inputs.dim() == 1 else "inputs_embeds": inputs[None]}
        if self.architecture.is_causal:
            given["use_cache"] = False
        token = _reading.set(reading)
        try:
            output = self.model(**given, position_ids=positions[None])
        finally:
            _reading.reset(token)
        states: Tensor = output.last_hidden_state[0]
        return states

    def pool_first(self, first_tokens: Tensor) -> Tensor:
        """Return a BERT's pooler's (B, D) output for the (B, D) states of first tokens."""
        pooler = self.model.pooler
        pooled: Tensor = pooler(first_tokens[:, None].to(pooler.dense.weight.dtype))
        return pooled.to(first_tokens.dtype)


def _recomputed(layer: nn.Module) -> Callable[..., Any]:
    """Return a block's forward that runs a second time in the backward, under the reading of the first."""
    own = layer.forward

    def forward(*args: Any, **options: Any) -> Any:
        if not (layer.training and torch.is_grad_enabled()):
            return own(*args, **options)
        reading = _reading.get()

        def run(*given: Any, **also: Any) -> Any:
            token = _reading.set(reading)
            try:
                return own(*given, **also)
            finally:
                _reading.reset(token)

        return checkpoint(run, *args, use_reentrant=False, **options)

    return forward


def _make_buffers(model: nn.Module, config: Any) -> None:
    """Give a model on the meta device its buffers, such as rotations, which no checkpoint holds."""
    from accelerate import init_empty_weights

    for module in model.modules():
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            with init_empty_weights():  # parameters take no memory, buffers are computed
                made = type(module)(config)
            for name, buffer in made.named_buffers(recurse=False):
                setattr(module, name, buffer)


def _path_of_words(model: Any) -> str:
    """Return the path of the table of word embeddings."""
    table = model.get_input_embeddings()
    return next(str(name) for name, module in model.named_modules() if module is table)


def _has(model: nn.Module, path: str) -> bool:
    parent, _, name = path.rpartition(".")
    return getattr(model.get_submodule(parent), name, None) is not None


def _replace(model: nn.Module, path: str, module: nn.Module | None) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
