"""Items as a language model reads them, and SASRec over their vectors.

Shapes: N items, R distinct items of a batch, T tokens of their texts, E events of a batch, B users, H width of the
language model, d width of SASRec, P prefix, Q suffix and K query vectors of a prompt.
Source: Li et al. (2023), https://arxiv.org/abs/2305.11700, and Kang & McAuley (2018),
https://doi.org/10.1109/ICDM.2018.00035. Deviations: nothing is computed for padding, which is no class either; of the
language model nothing is initialised anew; frozen blocks run without dropout.
"""

from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from PLMSASRec.options import ItemOptions, PromptOptions, SasrecOptions
from seqrec.nn.blocks import AttentionBlock
from seqrec.nn.dropout import Dropout
from seqrec.nn.ragged import Layout, plan_batch
from seqrec.text.blocks import Architecture, Blocks, Extra, Reading
from seqrec.text.options import TextPooling
from seqrec.text.pooling import pool_texts
from seqrec.text.texts import Texts

Head = Literal["untied", "tied"]


class PromptEncoder(nn.Module):
    """Keys and values for every block, from a table of vectors that are learned: P-tuning v2.

    Source: Liu et al. (2022), https://doi.org/10.18653/v1/2022.acl-short.8.
    """

    def __init__(self, length: int, architecture: Architecture, options: PromptOptions) -> None:
        super().__init__()
        self.shape = (length, architecture.num_blocks, 2, *architecture.kv_shape)
        heads, width = architecture.kv_shape
        out = 2 * architecture.num_blocks * heads * width
        self.projection: nn.Module = nn.Identity()
        if options.prompt_projection:
            inner = options.prompt_hidden_size
            self.table = nn.Parameter(torch.empty(length, architecture.width))
            self.projection = nn.Sequential(
                nn.Linear(architecture.width, inner), nn.GELU(), nn.LayerNorm(inner), nn.Linear(inner, out)
            )
        else:
            self.table = nn.Parameter(torch.empty(length, out))

    def forward(self) -> list[tuple[Tensor, Tensor]]:
        """Return each block's keys and values, (length, heads, width of a head) both."""
        made = self.projection(self.table).view(self.shape)
        return [(block[:, 0], block[:, 1]) for block in made.unbind(1)]


class Prompts(nn.Module):
    """Prefix, suffix and query vectors of one prompt."""

    def __init__(self, architecture: Architecture, options: PromptOptions) -> None:
        super().__init__()
        P, Q, K = options.lengths
        self.prefix = PromptEncoder(P, architecture, options) if P else None
        self.suffix = PromptEncoder(Q, architecture, options) if Q else None
        self.queries = nn.Parameter(torch.empty(K, architecture.word_width)) if K else None
        self.num_queries = K

    def extras(self) -> dict[int, Extra]:
        """Return what every block adds to its keys and values."""
        made = [None if part is None else part() for part in (self.prefix, self.suffix)]
        count = max((len(part) for part in made if part is not None), default=0)
        return {number: Extra(*(None if part is None else part[number] for part in made)) for number in range(count)}


class ItemVectors(nn.Module):
    """From what is known of items to their vectors in SASRec; the base of the three ways."""

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.offsets: nn.Embedding | None = None  # (N + 1, d), what an item's vector differs from its text's by

    def add_offsets(self, width: int) -> None:
        """Give every item an offset, which starts at zero."""
        self.offsets = nn.Embedding(self.num_items + 1, width, padding_idx=0)
        nn.init.zeros_(self.offsets.weight)

    def with_offset(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """Return (R, d) vectors with the offsets of their items, if there are any."""
        return vectors if self.offsets is None else vectors + self.offsets(rows)

    def forward(self, rows: Tensor, texts: Texts | None) -> Tensor:
        """Return (R, d).

        Args:
            rows: (R,) int64 items in 1..N.
            texts: The items' texts, if the model reads them.
        """
        raise NotImplementedError


class IdVectors(ItemVectors):
    """A vector of its own for every item."""

    def __init__(self, num_items: int, width: int, std: float) -> None:
        super().__init__(num_items)
        self.table = nn.Embedding(num_items + 1, width, padding_idx=0)
        nn.init.normal_(self.table.weight, std=std)
        with torch.no_grad():
            self.table.weight[0] = 0

    def forward(self, rows: Tensor, texts: Texts | None = None) -> Tensor:
        """Return (R, d)."""
        vectors: Tensor = self.table(rows)
        return vectors


class Projection(nn.Module):
    """From pooled states, (R, H) or with `mean_last` (R, 2 H), to (R, d)."""

    def __init__(self, pooling: TextPooling, width: int, out: int, options: ItemOptions) -> None:
        super().__init__()
        self.fusion: nn.Module = nn.Identity()
        if pooling == "mean_last":
            layers = [nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width), nn.GELU()]
            self.fusion = nn.Sequential(*layers, nn.Linear(width, width), nn.LayerNorm(width))
        sizes = (width, *options.projection_inner_sizes, out)
        maps: list[nn.Module] = []
        for before, after in pairwise(sizes):
            maps += [nn.Linear(before, after), nn.GELU() if options.projection_activation == "gelu" else nn.Identity()]
        self.maps = nn.Sequential(*maps[:-1])

    def forward(self, pooled: Tensor) -> Tensor:
        """Return (R, d)."""
        vectors: Tensor = self.maps(self.fusion(pooled))
        return vectors


class PooledVectors(ItemVectors):
    """Vectors that a frozen language model has made once, projected."""

    pooled: Tensor

    def __init__(self, pooled: Tensor, projection: Projection) -> None:
        """Take (N + 1, H) vectors, which are no part of a checkpoint."""
        super().__init__(len(pooled) - 1)
        self.register_buffer("pooled", pooled, persistent=False)
        self.projection = projection

    def forward(self, rows: Tensor, texts: Texts | None = None) -> Tensor:
        """Return (R, d)."""
        return self.with_offset(self.projection(F.embedding(rows, self.pooled)), rows)


class TextVectors(ItemVectors):
    """Vectors of a language model that runs, or whose upper blocks run over the cached states of the lower ones."""

    def __init__(
        self,
        num_items: int,
        lower: Blocks | None,
        upper: Blocks | None,
        trained_from: int,
        prompts: Prompts | None,
        pooling: TextPooling,
        projection: Projection,
    ) -> None:
        """Take the parts.

        Args:
            num_items: N.
            lower: Frozen blocks, run without gradients; None if texts are given as their cached states.
            upper: Blocks above them that gradients go through, if there are any.
            trained_from: First block that is trained; -1 trains the embeddings too, the number of blocks nothing.
            prompts: In all blocks of `upper`, which is then the whole model.
            pooling: From tokens to a text.
            projection: To the width of SASRec.
        """
        super().__init__(num_items)
        self.lower, self.upper, self.trained_from = lower, upper, trained_from
        self.prompts, self.pooling, self.projection = prompts, pooling, projection
        for blocks in (lower, upper):
            for number, parameter in () if blocks is None else numbered(blocks):
                parameter.requires_grad_(number >= trained_from)

    def train(self, mode: bool = True) -> "TextVectors":
        """Switch to training or evaluation; what is frozen stays in evaluation, without dropout."""
        super().train(mode)
        for blocks in (self.lower, self.upper):
            if blocks is None or self.trained_from < 0:
                continue
            blocks.eval()
            for number, block in blocks.layers:
                block.train(mode and number >= self.trained_from)
        return self

    def forward(self, rows: Tensor, texts: Texts | None) -> Tensor:
        """Return (R, d)."""
        assert texts is not None
        return self.project(self.pool(texts), rows)

    def project(self, pooled: Tensor, rows: Tensor) -> Tensor:
        """Return the (R, d) vectors of items from their pooled states."""
        return self.with_offset(self.projection(pooled), rows)

    def pool(self, texts: Texts) -> Tensor:
        """Return the pooled states of texts, (R, H), or (R, 2 H) with `mean_last`."""
        values, lengths, num_queries = texts.values, texts.offsets.diff(), 0
        extras: dict[int, Extra] = {}
        if self.prompts is not None:
            extras = self.prompts.extras()
            if self.prompts.queries is not None:
                assert self.upper is not None
                words = self.upper.word_embeddings(values)
                values, num_queries = _append(words, lengths, self.prompts.queries), self.prompts.num_queries
        plan = plan_batch(lengths + num_queries, values.device)
        reading = Reading(plan, extras, num_queries)
        states = values[plan.token_order]
        if self.lower is not None:
            with torch.no_grad():
                states = self.lower(states, reading)
        if self.upper is not None:
            states = self.upper(states, reading)
        last = self.upper if self.upper is not None else self.lower
        pooled = pool_texts(states, plan, self.pooling, None if last is None else last.pool_first, num_queries)
        return pooled.index_select(0, plan.order.argsort())


def numbered(blocks: Blocks) -> list[tuple[int, nn.Parameter]]:
    """Return every parameter with the number of its block: -1 for the embeddings, N - 1 for what follows the last."""
    number = {id(p): n for n, block in blocks.layers for p in block.parameters()}
    early = {id(p) for p in blocks.first_stage_parameters()}
    top = blocks.architecture.num_blocks - 1
    found = []
    for parameter in blocks.parameters():
        own = number.get(id(parameter))
        found.append((own if own is not None else (-1 if id(parameter) in early else top), parameter))
    return found


def _append(words: Tensor, lengths: Tensor, queries: Tensor) -> Tensor:
    """Return (T + B K, W): the words of each text, and after them the queries."""
    K, B = len(queries), len(lengths)
    out = words.new_empty(len(words) + B * K, words.shape[1])
    shift = torch.arange(B).repeat_interleave(lengths, output_size=len(words)) * K
    text = (torch.arange(len(words)) + shift).to(words.device)
    ends = (lengths.cumsum(0) + torch.arange(B) * K)[:, None] + torch.arange(K)
    out = out.index_copy(0, text, words)
    return out.index_copy(0, ends.flatten().to(words.device), queries.repeat(B, 1).to(words.dtype))


class Block(AttentionBlock):
    """Causal self-attention and a feed-forward network, each followed by its residual and norm."""

    def __init__(self, options: SasrecOptions) -> None:
        width, eps = options.sasrec_hidden_size, options.sasrec_layer_norm_eps
        super().__init__(width, options.sasrec_n_heads, options.sasrec_attention_dropout)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.feed_forward_in = nn.Linear(width, options.sasrec_inner_size)
        self.feed_forward_out = nn.Linear(options.sasrec_inner_size, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = Dropout(options.sasrec_hidden_dropout)

    def forward(self, x: Tensor, layout: Layout, last: Layout | None = None) -> Tensor:
        """Return (E, d), or (B, d) where `last` asks for the last event of each history alone."""
        asked = x if last is None else x[layout.last]
        mixed = self.attention(asked, x, layout, last, causal=True)
        asked = self.attention_norm(asked + self.dropout(mixed))
        inner = F.gelu(self.dropout(self.feed_forward_in(asked)))
        out: Tensor = self.feed_forward_norm(asked + self.feed_forward_out(inner))
        return out


class SASRecEncoder(nn.Module):
    """Positions and blocks over the vectors of a history's items."""

    def __init__(self, options: SasrecOptions) -> None:
        super().__init__()
        width = options.sasrec_hidden_size
        self.positions = nn.Embedding(options.sasrec_seq_len, width)
        self.norm = nn.LayerNorm(width, eps=options.sasrec_layer_norm_eps)
        self.dropout = Dropout(options.sasrec_hidden_dropout)
        self.blocks = nn.ModuleList(Block(options) for _ in range(options.sasrec_n_layers))

    def forward(self, vectors: Tensor, positions: Tensor, layout: Layout, last: Layout | None = None) -> Tensor:
        """Return each event's vector that predicts the next event.

        Args:
            vectors: (E, d) of the items, oldest event of a history first, one history after another.
            positions: (E,) int64, 0 for the oldest event that is read.
            layout: Where each history lies.
            last: If given, only the last event of each history is computed.

        Returns:
            (E, d), or (B, d) under `last`.
        """
        x = self.dropout(self.norm(vectors + self.positions(positions)))
        for block in self.blocks[:-1]:
            x = block(x, layout)
        out: Tensor = self.blocks[-1](x, layout, last)
        return out


class PLMSASRec(nn.Module):
    """Item vectors, SASRec over them, and the head."""

    def __init__(self, items: ItemVectors, options: SasrecOptions, head: Head) -> None:
        super().__init__()
        self.items, self.encoder, self.head = items, SASRecEncoder(options), head
        if head == "untied":
            self.classes = nn.Embedding(items.num_items + 1, options.sasrec_hidden_size, padding_idx=0)
            self.class_bias = nn.Parameter(torch.zeros(items.num_items + 1, 1))
        std = options.sasrec_initializer_range
        # Only what is new: a language model's own weights stay as they were loaded.
        for part in (self.encoder, getattr(self, "classes", None), *_new_parts(items)):
            if part is not None:
                part.apply(lambda module: _initialise(module, std))
        if head == "untied":
            with torch.no_grad():
                self.classes.weight[0] = 0

    def class_vectors(self, table: Tensor | None, rows: Tensor | None = None) -> Tensor:
        """Return what scores are taken with, (R, d), or with an untied head (R, d + 1), its bias last.

        Args:
            table: (R, d) vectors of the items, which a tied head takes.
            rows: (R,) int64 items that an untied head is asked for; by default all N + 1.
        """
        if self.head == "tied":
            assert table is not None
            return table
        read = self.classes.weight, self.class_bias
        return torch.cat([x if rows is None else F.embedding(rows, x) for x in read], dim=1)

    def with_bias(self, hidden: Tensor) -> Tensor:
        """Return what is multiplied with class vectors."""
        return hidden if self.head == "tied" else torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1)


def _new_parts(items: ItemVectors) -> list[nn.Module]:
    """Return the parts of item vectors that no checkpoint gives."""
    names = ("projection", "prompts")
    return [part for name in names if isinstance(part := getattr(items, name, None), nn.Module)]


def _initialise(module: Any, std: float) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    for name, parameter in module.named_parameters(recurse=False):
        if name in ("table", "queries"):
            nn.init.normal_(parameter, std=std)
