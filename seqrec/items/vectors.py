"""From what is known of items to their vectors in a recommender.

Shapes: N items, R distinct items of a batch, T tokens of their texts, H width of the language model, d width of the
recommender, K query vectors of a prompt.
Deviations from Li et al. (2023), https://arxiv.org/abs/2305.11700: nothing is computed for padding; of the language
model nothing is initialised anew; frozen blocks run without dropout.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.items.options import ItemOptions
from seqrec.items.prompts import Prompts
from seqrec.nn.ragged import plan_batch
from seqrec.text.blocks import Blocks
from seqrec.text.options import TextPooling
from seqrec.text.pooling import pool_texts
from seqrec.text.reading import Extra, TextReading
from seqrec.text.texts import Texts


class ItemVectors(nn.Module):
    """From what is known of items to their vectors in the recommender; the base of the three ways."""

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
            prompts: In all blocks of `upper`: it is the whole model, unless they are queries alone.
            pooling: From tokens to a text.
            projection: To the width of the recommender.
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
        lengths, num_queries = texts.offsets.diff(), 0
        plan = plan_batch(lengths, texts.values.device)
        states = texts.values[plan.token_order]
        if self.lower is not None:
            with torch.no_grad():
                states = self.lower(states, TextReading(plan))
        extras: dict[int, Extra] = {}
        if self.prompts is not None:
            extras = self.prompts.extras()
            if self.prompts.queries is not None:
                assert self.upper is not None
                own = states if states.dim() == 2 else self.upper.word_embeddings(states)
                num_queries = self.prompts.num_queries
                longer = _append(own[plan.token_order.argsort()], lengths, self.prompts.queries)
                plan = plan_batch(lengths + num_queries, longer.device)
                states = longer[plan.token_order]
        reading = TextReading(plan, extras, num_queries)
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
