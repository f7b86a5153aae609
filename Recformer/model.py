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
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from Recformer.attention import Plan, attend_globally, attend_locally, average_tokens, plan_batch
from Recformer.config import ACTIVATIONS, RecformerConfig
from Recformer.lora import effective_weight
from Recformer.modern import ModernEmbeddings, ModernLayer
from Recformer.text import TokenBatch
from seqrec.dropout import dropout
from seqrec.errors import UserError


class Encoded(NamedTuple):
    """What the encoder returns."""

    pooled: Tensor
    """(B, D) one vector per sequence."""
    tokens: Tensor | None
    """(T, D) one vector per token in the order of the batch, where asked for."""


class Dropout(nn.Module):
    """Dropout in training, nothing otherwise."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return dropout(x, self.p if self.training else 0.0)


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


class RecformerModel(nn.Module):
    """Encodes sequences of tokens; item texts and histories go through the same weights."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        self.config = config
        modern = config.architecture == "modernbert"
        self.embeddings = ModernEmbeddings(config) if modern else Embeddings(config)
        self.encoder = Encoder(config)
        final = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.norm_bias)
        self.final_norm = final if modern else nn.Identity()
        self.apply(self._initialise)
        self.register_load_state_dict_pre_hook(_forget_position_ids)

    @classmethod
    def from_pretrained(cls, name_or_path: str, **changes: Any) -> "RecformerModel":
        """Return the encoder of a backbone or of a saved Recformer; see `Recformer.backbone.load_backbone`."""
        from Recformer.backbone import load_backbone

        return load_backbone(name_or_path, **changes)[0]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write configuration and weights into a folder that `from_pretrained` takes once it has a tokenizer too."""
        from Recformer.checkpoint import save_folder

        save_folder(Path(folder), self.config, self.state_dict())

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
        plan = plan_batch(lengths, batch.input_ids.device)
        x = self.embeddings(batch, plan)
        *body, last = self.encoder.layers
        for layer in body:
            x = layer(x, plan)
        if self.config.pooler_type == "cls" and not all_tokens:
            return Encoded(_unsort(self.final_norm(last(x, plan, only_first=True)), plan.order), None)
        x = self.final_norm(last(x, plan))
        pooled = x.index_select(0, plan.first) if self.config.pooler_type == "cls" else average_tokens(x, plan)
        return Encoded(_unsort(pooled, plan.order), _unsort(x, plan.token_order) if all_tokens else None)

    def freeze_unread(self) -> None:
        """Freeze what no pooled vector depends on: the last layer's local projections, with `cls` pooling."""
        last = self.encoder.layers[-1]
        if self.config.pooler_type == "cls" and isinstance(last, Layer):
            attention = last.attention.self
            for layer in (attention.query, attention.key, attention.value):
                layer.requires_grad_(False)


class RecformerForSeqRec(nn.Module):
    """Scores items by the cosine of their vectors with the history's, divided by the temperature.

    Published weights load by `load_state_dict(..., strict=False)`, which leaves their language-model head aside.
    """

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        self.config = config
        self.longformer = RecformerModel(config)
        self.item_embedding: nn.Embedding | None = None

    @classmethod
    def from_pretrained(cls, name_or_path: str, **changes: Any) -> "RecformerForSeqRec":
        """Return a recommender with the encoder of a backbone, or with that and the items of a saved recommender."""
        from Recformer.backbone import find_backbone
        from Recformer.checkpoint import load_folder

        longformer = RecformerModel.from_pretrained(name_or_path, **changes)
        model = cls(longformer.config)
        model.longformer = longformer
        table = load_folder(find_backbone(name_or_path)).get("item_embedding.weight")
        if table is not None:
            model.init_item_embedding(table)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write configuration, encoder and item table into a folder, as `RecformerModel.save_pretrained` does."""
        from Recformer.checkpoint import save_folder

        save_folder(Path(folder), self.config, self.state_dict())

    def init_item_embedding(self, vectors: Tensor | None = None) -> None:
        """Set the item table: given vectors are frozen, None makes a new table that is learnt.

        Args:
            vectors: (N + 1, D) float32, row i is item i, row 0 zeros.

        Raises:
            UserError: If the width is not the encoder's, or row 0 is not zeros.
        """
        D = self.config.hidden_size
        if vectors is None:
            self.item_embedding = nn.Embedding(self.config.item_num + 1, D, padding_idx=0)
            nn.init.normal_(self.item_embedding.weight[1:], std=self.config.initializer_range)
            return
        if vectors.dim() != 2 or vectors.shape[1] != D or vectors[0].any():
            raise UserError(f"item vectors must be (items + 1, {D}) with zeros in row 0, got {tuple(vectors.shape)}")
        self.item_embedding = nn.Embedding(len(vectors), D, padding_idx=0, _weight=vectors, _freeze=True)

    def encode(self, batch: TokenBatch) -> Tensor:
        """Return (B, D), one vector per sequence."""
        pooled: Tensor = self.longformer(batch).pooled
        return pooled

    def forward(self, batch: TokenBatch, labels: Tensor | None = None, candidates: Tensor | None = None) -> Tensor:
        """Return scores, or with labels the mean cross-entropy.

        Args:
            batch: B histories.
            labels: (B,) int64: the target item, or with `candidates` its column among them.
            candidates: (B, C) int64 item ids; all items by default.

        Returns:
            (B, N + 1) float32 scores, column i for item i and -inf in column 0; or (B, C); or the loss, ().
        """
        scores = self.score(self.encode(batch), candidates)
        return scores if labels is None else F.cross_entropy(scores, labels)

    def score(self, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Return the scores of (B, D) user vectors, shaped as `forward` says, in [-1 / temp, 1 / temp]."""
        if self.item_embedding is None:
            raise UserError("the item table is not set: call init_item_embedding first")
        users = F.normalize(users.float(), dim=-1) / self.config.temp
        if candidates is not None:
            items = F.normalize(self.item_embedding(candidates), dim=-1)  # (B, C, D)
            return torch.bmm(items, users[:, :, None]).squeeze(-1)
        scores = users @ F.normalize(self.item_embedding.weight, dim=-1).T
        padding = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        padding[0] = True
        return scores.masked_fill(padding, -torch.inf)


def _forget_position_ids(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Drop the table of positions that published checkpoints hold and nobody reads."""
    state.pop(f"{prefix}embeddings.position_ids", None)


def _unsort(values: Tensor, order: Tensor) -> Tensor:
    """Return `values` with row i moved to row order[i]."""
    return values.index_select(0, order.argsort())
