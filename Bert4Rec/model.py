"""BERT4Rec. Shapes: B users, T events of all, Q asked events, D hidden width, V width of the item vectors, N items.

Source: Sun et al. (2019), https://doi.org/10.1145/3357384.3357895. Deviations: histories are ragged, so nothing is
computed for padding; the last block computes only the events that a loss or a prediction reads; positions count from
the end of the history, so that the event to be predicted always has the same one; scores have no item bias, except with
a separate output table. `--architecture published` is the network of the code published with Qu et al. (2024),
https://arxiv.org/abs/2404.08796.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from seqrec.nn.blocks import AttentionBlock, check_sizes
from seqrec.nn.dropout import Dropout
from seqrec.nn.item_table import GivenVectors, ItemTable
from seqrec.nn.ragged import Layout


@dataclass(frozen=True, slots=True)
class Bert4RecConfig:
    """The architecture."""

    hidden_units: int = 64
    """Width D of the model."""
    num_blocks: int = 2
    """Transformer blocks."""
    num_heads: int = 2
    """Attention heads per block."""
    dropout_rate: float = 0.2
    """Dropout rate of embeddings, attention weights and the output of each layer."""
    maxlen: Annotated[int, tyro.conf.arg(aliases=["--bert_max_len"])] = 50
    """Maximum number of most recent events that the model reads, the masked one included."""
    untied_output: bool = False
    """Score with a separate item table and a bias instead of the input item vectors."""
    architecture: Literal["bert", "published"] = "bert"
    """Network: bert (with a norm before the blocks and a layer before the scores, as in BERT), or published (without
    the two; dropout after each block; an untied output)."""

    def __post_init__(self) -> None:
        check_sizes(self, least_length=2)  # one event and the masked one

    @property
    def has_output_table(self) -> bool:
        """Return whether scores come from a separate item table and a bias."""
        return self.untied_output or self.architecture == "published"


class DeviationNorm(nn.Module):
    """Layer norm that divides by the unbiased standard deviation plus 1e-6, not by the root of the variance."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape, normed over its last dimension."""
        deviation, mean = torch.std_mean(x, dim=-1, keepdim=True)
        return torch.addcmul(self.bias, self.weight, (x - mean) / (deviation + 1e-6))


class BidirectionalBlock(AttentionBlock):
    """Bidirectional self-attention and a feed-forward network, each followed by dropout, residual and norm."""

    def __init__(self, config: Bert4RecConfig) -> None:
        width, is_published = config.hidden_units, config.architecture == "published"
        super().__init__(width, config.num_heads, config.dropout_rate)
        norm = DeviationNorm if is_published else nn.LayerNorm
        self.attention_norm = norm(width)
        self.feed_forward_in = nn.Linear(width, 4 * width)
        self.feed_forward_out = nn.Linear(4 * width, width)
        self.feed_forward_norm = norm(width)
        self.dropout = Dropout(config.dropout_rate)
        self.last_dropout = Dropout(config.dropout_rate if is_published else 0.0)

    def forward(
        self, x: Tensor, layout: Layout, asked: Tensor | None = None, asked_layout: Layout | None = None
    ) -> Tensor:
        """Return (T, D), or (Q, D) where only the `asked` events are wanted."""
        events = x
        if asked is not None:
            x = x[asked]
        x = self.attention_norm(x + self.dropout(self.attention(x, events, layout, asked_layout, causal=False)))
        inner = F.gelu(self.feed_forward_in(x), approximate="tanh")
        out: Tensor = self.last_dropout(self.feed_forward_norm(x + self.dropout(self.feed_forward_out(inner))))
        return out


class Bert4Rec(nn.Module):
    """Item table, a vector for "masked", positions and blocks."""

    def __init__(self, num_items: int, config: Bert4RecConfig, given: GivenVectors | None = None) -> None:
        """Start from random item vectors, or from given ones.

        Args:
            num_items: N.
            config: The architecture.
            given: Given item vectors.
        """
        super().__init__()
        self.config = config
        width = config.hidden_units
        self.item_embedding = ItemTable(num_items, width, 0.02, given)
        self.mask_embedding = nn.Parameter(torch.empty(width))
        self.position_embedding = nn.Embedding(config.maxlen, width)
        is_bert = config.architecture == "bert"
        self.input_norm = nn.LayerNorm(width) if is_bert else nn.Identity()
        self.dropout = Dropout(config.dropout_rate)
        self.blocks = nn.ModuleList(BidirectionalBlock(config) for _ in range(config.num_blocks))
        if is_bert:
            self.output = nn.Linear(width, width)
            self.output_norm = nn.LayerNorm(width)
        if config.has_output_table:
            self.output_embedding = nn.Embedding(num_items + 1, width, padding_idx=0)
            self.output_bias = nn.Parameter(torch.zeros(num_items + 1, 1))
        for name, parameter in self.named_parameters():
            matrix = parameter.dim() > 1 and name != "output_bias" and not name.startswith("item_embedding.")
            if matrix or name == "mask_embedding":
                nn.init.normal_(parameter, std=0.02)
        if config.has_output_table:
            with torch.no_grad():
                self.output_embedding.weight[0] = 0

    def item_vectors(self, table: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
        """Return what scores are taken with: (R, D), or (R, D+1) with a bias as the last column.

        Args:
            table: (R, D) item vectors, where they are at hand.
            rows: (R,) int64 items that the table is of; by default all N+1.
        """
        if self.config.has_output_table:
            read = self.output_embedding.weight, self.output_bias
            return torch.cat([x if rows is None else F.embedding(rows, x) for x in read], dim=1)
        return self.item_embedding.vectors() if table is None else table

    def forward(
        self,
        items: Tensor,
        masked: Tensor,
        positions: Tensor,
        layout: Layout,
        asked: Tensor,
        asked_layout: Layout,
        table: Tensor | None = None,
    ) -> Tensor:
        """Return what the asked events are predicted with.

        Args:
            items: (T,) int64 histories one after another; whatever stands at a masked event is not read.
            masked: (T,) bool.
            positions: (T,) int64 in 0..maxlen-1; the last event of a history has maxlen-1.
            layout: Where each history lies.
            asked: (Q,) int64 index of the events to predict, ascending, at least one of each history.
            asked_layout: Where each history's asked events lie in `asked`.
            table: (R, D) item vectors that `items` are rows of, where they are at hand.

        Returns:
            (Q, D), or (Q, D+1) with a last column of ones for the bias.
        """
        x = self.item_embedding(items) if table is None else F.embedding(items, table)
        x = torch.where(masked[:, None], self.mask_embedding, x) + self.position_embedding(positions)
        x = self.dropout(self.input_norm(x))
        for block in self.blocks[:-1]:
            x = block(x, layout)
        x = self.blocks[-1](x, layout, asked, asked_layout)
        if self.config.architecture == "bert":
            x = self.output_norm(F.gelu(self.output(x), approximate="tanh"))
        return F.pad(x, (0, 1), value=1.0) if self.config.has_output_table else x
