"""Vectors that a prompt adds to a text, or to what the blocks of a language model make of it."""

import torch
from torch import Tensor, nn

from seqrec.items.options import PromptOptions
from seqrec.text.blocks import Architecture
from seqrec.text.reading import Extra


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

    def __init__(self, architecture: Architecture, options: PromptOptions, first_block: int = 0) -> None:
        """Make the parts that the options ask for; queries enter before the first of the blocks that read them."""
        super().__init__()
        P, Q, K = options.lengths
        self.prefix = PromptEncoder(P, architecture, options) if P else None
        self.suffix = PromptEncoder(Q, architecture, options) if Q else None
        width = architecture.width if first_block else architecture.word_width
        self.queries = nn.Parameter(torch.empty(K, width)) if K else None
        self.num_queries = K

    def extras(self) -> dict[int, Extra]:
        """Return what every block adds to its keys and values."""
        made = [None if part is None else part() for part in (self.prefix, self.suffix)]
        count = max((len(part) for part in made if part is not None), default=0)
        return {number: Extra(*(None if part is None else part[number] for part in made)) for number in range(count)}
