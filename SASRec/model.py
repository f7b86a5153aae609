"""SASRec. Shapes: B users, T events of all, D hidden width, N items.

Source: Kang & McAuley (2018), https://doi.org/10.1109/ICDM.2018.00035. Deviations: histories are ragged, so nothing is
computed for padding and nothing attends to it; the item table may start from given vectors.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.basics.errors import UserError
from seqrec.nn.blocks import CausalBlock, LigrBlock, check_sizes
from seqrec.nn.dropout import Dropout
from seqrec.nn.item_table import GivenVectors, ItemTable
from seqrec.nn.ragged import Layout
from seqrec.nn.rotation import turn_by_time


@dataclass(frozen=True, slots=True)
class SASRecConfig:
    """The architecture."""

    hidden_units: int = 64
    """Width D of the model."""
    num_blocks: int = 2
    """Transformer blocks."""
    num_heads: int = 1
    """Attention heads per block."""
    dropout_rate: float = 0.2
    """Dropout rate of embeddings, attention weights and feed-forward activations."""
    maxlen: int = 50
    """Maximum number of most recent events that the model reads."""
    block: Literal["sasrec", "ligr"] = "sasrec"
    """Transformer block: sasrec (the original) or ligr (pre-norm, gated attention, SwiGLU)."""
    relative_time: bool = False
    """Let attention depend on the time between events; needs timestamps."""

    def __post_init__(self) -> None:
        check_sizes(self, least_length=1)
        if self.relative_time and self.hidden_units // self.num_heads % 2:
            raise UserError(
                f"--relative_time turns pairs of numbers: --hidden_units {self.hidden_units} over --num_heads "
                f"{self.num_heads} must be even"
            )


class SASRec(nn.Module):
    """Item table, positions and blocks; scores are dot products with the item table."""

    def __init__(self, num_items: int, config: SASRecConfig, given: GivenVectors | None = None) -> None:
        """Start from random item vectors, or from given ones.

        Args:
            num_items: N.
            config: The architecture.
            given: Given item vectors.
        """
        super().__init__()
        self.config = config
        width = config.hidden_units
        # Xavier's deviation, as for all matrices here.
        self.item_embedding = ItemTable(num_items, width, (2 / (num_items + 1 + width)) ** 0.5, given)
        self.position_embedding = nn.Embedding(config.maxlen, width)
        self.dropout = Dropout(config.dropout_rate)
        make_block = CausalBlock if config.block == "sasrec" else LigrBlock
        sizes = width, config.num_heads, config.dropout_rate
        self.blocks = nn.ModuleList(make_block(*sizes) for _ in range(config.num_blocks))
        self.last_norm = nn.LayerNorm(width, eps=1e-8)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1 and not name.startswith("item_embedding."):
                nn.init.xavier_normal_(parameter)

    def item_vectors(self, table: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
        """Return the item vectors for scoring: `table`, (R, D), if given, else all, (N+1, D)."""
        return self.item_embedding.vectors() if table is None else table

    def forward(
        self,
        items: Tensor,
        positions: Tensor,
        layout: Layout,
        last: Layout | None = None,
        table: Tensor | None = None,
        seconds: Tensor | None = None,
    ) -> Tensor:
        """Return each event's vector that predicts the next event.

        Args:
            items: (T,) int64 histories, oldest event first, one after another.
            positions: (T,) int64 in 0..maxlen-1; the last event of a history has maxlen-1.
            layout: Where each history lies.
            last: If given, only the last event of each history is computed.
            table: (R, D) item vectors that `items` index, if already computed.
            seconds: (T,) int64 times of the events, under `relative_time`.

        Returns:
            (T, D), or (B, D) under `last`.
        """
        width = self.config.hidden_units
        vectors = self.item_embedding(items) if table is None else F.embedding(items, table)
        x = torch.add(self.position_embedding(positions), vectors, alpha=width**0.5)
        x = self.dropout(x)
        turn = None if seconds is None else turn_by_time(seconds, width // self.config.num_heads)
        every = None if turn is None else (turn, turn)
        for block in self.blocks[:-1]:
            x = block(x, layout, turns=every)
        asked = every if turn is None or last is None else (turn.rows(layout.last), turn)
        out: Tensor = self.last_norm(self.blocks[-1](x, layout, last, asked))
        return out
