"""Item vectors, what reads histories of them, and the head.

Shapes: N items, R items that are asked for, T events that predict, d width of the recommender.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.items.options import Head
from seqrec.items.vectors import ItemVectors


class TextRecommender(nn.Module):
    """The three of them."""

    def __init__(
        self, items: ItemVectors, encoder: nn.Module, width: int, head: Head = "tied", std: float = 0.02
    ) -> None:
        """Take item vectors and an encoder of histories.

        Args:
            items: Of all items.
            encoder: With weights of its own.
            width: d.
            head: Scores are products with the items' vectors (tied), or with others, plus a bias (untied).
            std: Of new weights.
        """
        super().__init__()
        self.items, self.encoder, self.head = items, encoder, head
        if head == "untied":
            self.classes = nn.Embedding(items.num_items + 1, width, padding_idx=0)
            self.class_bias = nn.Parameter(torch.zeros(items.num_items + 1, 1))
        # Only what is new: a language model's own weights stay as they were loaded.
        for part in (getattr(self, "classes", None), *_new_parts(items)):
            if part is not None:
                initialise(part, std)
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
        return hidden if self.head == "tied" else F.pad(hidden, (0, 1), value=1.0)


def _new_parts(items: ItemVectors) -> list[nn.Module]:
    """Return the parts of item vectors that no checkpoint gives."""
    names = ("projection", "prompts")
    return [part for name in names if isinstance(part := getattr(items, name, None), nn.Module)]


def initialise(part: nn.Module, std: float) -> None:
    """Draw the weights of maps, tables and prompts from a normal distribution; biases are zero."""
    part.apply(lambda module: _initialise(module, std))


def _initialise(module: Any, std: float) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    for name, parameter in module.named_parameters(recurse=False):
        if name in ("table", "queries"):
            nn.init.normal_(parameter, std=std)
