"""The text encoder of Recformer and the recommender on top of it.

A Longformer with two more embeddings: what kind of token it is, and which item of the history it belongs to.
It runs on ragged batches: embeddings, projections and feed-forward see the (T, D) tokens and no padding.
Where only the first token of the last layer is read, only that is computed. Parameters have the names of
`transformers`' Longformer, so its checkpoints load.

ModernBERT's layers take the place of Longformer's where the configuration says so.

Shapes: T tokens, B sequences, D width, H heads, E = D / H, N items, C candidates.
Source: Li et al. (2023), https://arxiv.org/abs/2305.13731; Beltagy et al. (2020), https://arxiv.org/abs/2004.05150.
"""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from Recformer.attention import attend_globally, attend_locally
from Recformer.config import ACTIVATIONS, RecformerConfig
from Recformer.modern import ModernEmbeddings, ModernLayer
from seqrec.basics.errors import UserError
from seqrec.nn.dropout import Dropout
from seqrec.nn.ragged import Plan, plan_batch
from seqrec.text.encoder import Encoded, TextEncoder
from seqrec.text.lora import effective_weight
from seqrec.text.options import Pooling
from seqrec.text.pooling import pool_items, pool_tokens
from seqrec.text.sequences import TokenBatch, split_items
from seqrec.text.weights import save_folder


class Embeddings(nn.Module):
    """Word, position, token-type and item-position embeddings, summed and normalised."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, D, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, D)
        self.token_type_embeddings = nn.Embedding(config.token_type_size, D)
        self.item_position_embeddings = nn.Embedding(config.max_item_embeddings, D)
        self.LayerNorm = nn.LayerNorm(D, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.position_offset = config.position_offset

    def forward(self, batch: TokenBatch, plan: Plan) -> Tensor:
        """Return (T, D) in the order of the plan."""
        order = plan.token_order
        total = self.word_embeddings(batch.input_ids[order])
        total = total + self.position_embeddings(plan.positions + self.position_offset)
        total = total + self.token_type_embeddings(batch.token_type_ids[order])
        total = total + self.item_position_embeddings(batch.item_position_ids[order])
        out: Tensor = self.dropout(self.LayerNorm(total))
        return out


class SelfAttention(nn.Module):
    """Windowed attention of all tokens, and full attention of each sequence's first."""

    def __init__(self, config: RecformerConfig, window: int) -> None:
        super().__init__()
        D = config.hidden_size
        self.query, self.key, self.value = (nn.Linear(D, D) for _ in range(3))
        self.query_global, self.key_global, self.value_global = (nn.Linear(D, D) for _ in range(3))
        self.heads = config.num_attention_heads
        self.reach = window // 2
        self.dropout = config.attention_probs_dropout_prob

    def forward(self, x: Tensor, plan: Plan) -> Tensor:
        """Return (T, D) from (T, D)."""
        q, k, v = (layer(x).view(len(x), self.heads, -1) for layer in (self.query, self.key, self.value))  # (T, H, E)
        local = attend_locally(q, k, v, plan, self.reach, self.dropout if self.training else 0.0)
        return local.index_copy(0, plan.first, self.first_tokens(x, plan).to(local.dtype))

    def first_tokens(self, x: Tensor, plan: Plan) -> Tensor:
        """Return (B, D), the rows of the first tokens alone."""
        E = x.shape[1] // self.heads
        q = self.query_global(x.index_select(0, plan.first)).view(-1, self.heads, E) * E**-0.5  # (B, H, E)
        key, value = (
            effective_weight(layer).view(self.heads, E, -1) for layer in (self.key_global, self.value_global)
        )  # (H, E, D)
        probe = torch.einsum("bhe,hed->bhd", q, key)
        bias = (q * self.key_global.bias.view(self.heads, E)).sum(-1)  # (B, H)
        dropout = self.dropout if self.training else 0.0
        sums, mass = attend_globally(x, probe, bias, plan, dropout)
        out = torch.einsum("bhd,hed->bhe", sums, value)
        out = out + mass[:, :, None] * self.value_global.bias.view(self.heads, E)
        return out.flatten(1)


class Output(nn.Module):
    """A projection, dropout, the residual and its normalisation."""

    def __init__(self, config: RecformerConfig, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return (T, D) from (T, width) and (T, D)."""
        out: Tensor = self.LayerNorm(self.dropout(self.dense(x)) + residual)
        return out


class Attention(nn.Module):
    """Self-attention and its output, under the names of a Longformer's state dict."""

    def __init__(self, config: RecformerConfig, window: int) -> None:
        super().__init__()
        self.self = SelfAttention(config, window)
        self.output = Output(config, config.hidden_size)


class Intermediate(nn.Module):
    """First half of the feed-forward block."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """Return (T, intermediate_size) from (T, D)."""
        return self.activation(self.dense(x))


class Layer(nn.Module):
    """One layer of the encoder."""

    def __init__(self, config: RecformerConfig, window: int) -> None:
        super().__init__()
        self.attention = Attention(config, window)
        self.intermediate = Intermediate(config)
        self.output = Output(config, config.intermediate_size)

    def forward(self, x: Tensor, plan: Plan, only_first: bool = False) -> Tensor:
        """Return (T, D) from (T, D), or (B, D), the rows of the first tokens, with `only_first`."""
        mixer = self.attention.self
        attended = mixer.first_tokens(x, plan) if only_first else mixer(x, plan)
        x = self.attention.output(attended, x.index_select(0, plan.first) if only_first else x)
        out: Tensor = self.output(self.intermediate(x), x)
        return out


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        if config.architecture == "modernbert":
            self.layer = nn.ModuleList(ModernLayer(config, index) for index in range(config.num_hidden_layers))
        else:
            self.layer = nn.ModuleList(Layer(config, window) for window in config.attention_window)

    @property
    def layers(self) -> list[Layer | ModernLayer]:
        """Return the layers under their own type, first to last."""
        return cast(list[Layer | ModernLayer], list(self.layer))


class RecformerModel(TextEncoder):
    """Encodes sequences of tokens; item texts and histories go through the same weights."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__(config.hidden_size, config.max_token_num)
        self.config = config
        modern = config.architecture == "modernbert"
        self.embeddings = ModernEmbeddings(config) if modern else Embeddings(config)
        self.encoder = Encoder(config)
        final = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.norm_bias)
        self.final_norm = final if modern else nn.Identity()
        self.apply(self._initialise)
        self.register_load_state_dict_pre_hook(_forget_position_ids)

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Return the table that turns token ids into vectors."""
        return self.embeddings.word_embeddings

    def save_pretrained(self, folder: str | Path) -> None:
        """Write configuration and weights into a folder that `from_pretrained` takes once it has a tokenizer too."""
        save_folder(Path(folder), self.config.to_dict(), self.state_dict())

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, batch: TokenBatch, all_tokens: bool = False) -> Encoded:
        """Return one vector per sequence, and with `all_tokens` one per token too.

        Raises:
            UserError: If a sequence is empty or longer than the position table.
        """
        lengths = batch.lengths
        shortest, longest = int(lengths.min()), int(lengths.max())
        limit = self.config.max_position_embeddings - self.config.position_offset
        if shortest < 1 or longest > limit:
            raise UserError(f"sequences must have 1..{limit} tokens, got {shortest}..{longest}: cut them when built")
        if self.config.pooler_type == "items":
            return self._read_items(batch, all_tokens)
        return self._read(batch, self.config.pooler_type, all_tokens)

    def _read_items(self, batch: TokenBatch, all_tokens: bool) -> Encoded:
        items = split_items(batch)
        read = self._read(items.texts, "mean", all_tokens)
        tokens = None if read.tokens is None else read.tokens[items.became]
        return Encoded(pool_items(read.pooled, items.owner, items.place, len(batch), self.config.item_decay), tokens)

    def _read(self, batch: TokenBatch, pooling: Pooling, all_tokens: bool) -> Encoded:
        plan = plan_batch(batch.lengths, batch.input_ids.device)
        x = self.embeddings(batch, plan)
        *body, last = self.encoder.layers
        for layer in body:
            x = layer(x, plan)
        if pooling == "cls" and not all_tokens:
            return Encoded(_unsort(self.final_norm(last(x, plan, only_first=True)), plan.order), None)
        x = self.final_norm(last(x, plan))
        items = batch.item_position_ids[plan.token_order]
        pooled = pool_tokens(x, plan, pooling, items, self.config.item_decay)
        return Encoded(_unsort(pooled, plan.order), _unsort(x, plan.token_order) if all_tokens else None)

    def freeze_unread(self) -> None:
        """Freeze parameters that no pooled vector depends on: with `cls` pooling the last layer's local projections."""
        last = self.encoder.layers[-1]
        if self.config.pooler_type == "cls" and isinstance(last, Layer):
            attention = last.attention.self
            for layer in (attention.query, attention.key, attention.value):
                layer.requires_grad_(False)


def _forget_position_ids(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Drop the unused table of positions of published checkpoints."""
    state.pop(f"{prefix}embeddings.position_ids", None)


def _unsort(values: Tensor, order: Tensor) -> Tensor:
    """Return `values` with row i moved to row order[i]."""
    return values.index_select(0, order.argsort())
