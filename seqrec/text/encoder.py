"""The interface of text encoders, for training, encoding and export.

Shapes: T tokens, B sequences, D width.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from seqrec.text.sequences import TokenBatch


class Encoded(NamedTuple):
    """Output of an encoder."""

    pooled: Tensor
    """(B, D) one vector per sequence."""
    tokens: Tensor | None
    """(T, D) one vector per token in the order of the batch, if requested."""


class TextEncoder(nn.Module, ABC):
    """A language model that turns token sequences into vectors."""

    def __init__(self, width: int, max_token_num: int) -> None:
        """Take the width of the vectors and the longest sequence, in tokens."""
        super().__init__()
        self.width = width
        self.max_token_num = max_token_num

    @property
    @abstractmethod
    def word_embeddings(self) -> nn.Embedding:
        """Return the table that turns token ids into vectors."""

    @abstractmethod
    def forward(self, batch: TokenBatch, all_tokens: bool = False) -> Encoded:
        """Return one vector per sequence, and with `all_tokens` one per token too."""
