"""Item vectors by id, and what reads histories of them. Shapes: N items, R items that are asked for, D width."""

from torch import Tensor, nn

from PerSRec.blocks import BlockEncoder
from PerSRec.encoder import HistoryEncoder
from PerSRec.options import ModelOptions
from seqrec.nn.item_table import GivenVectors, ItemTable
from seqrec.nn.segments import Window


def build_encoder(options: ModelOptions, window: Window) -> HistoryEncoder:
    """Return what reads histories: HSTU's blocks, SASRec's, or those of a language model."""
    if options.model != "llama":
        return BlockEncoder(options, window)
    from PerSRec.language_model import build_language_model

    return build_language_model(options, window)


class HistoryModel(nn.Module):
    """An item table and an encoder of histories."""

    def __init__(self, num_items: int, encoder: HistoryEncoder, given: GivenVectors | None = None) -> None:
        """Start from random item vectors, or from given ones."""
        super().__init__()
        self.encoder = encoder
        self.item_embedding = ItemTable(num_items, encoder.width, 0.02, given)

    def item_vectors(self, table: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
        """Return the item vectors for scoring: `table`, (R, D), if given, else all, (N+1, D)."""
        return self.item_embedding.vectors() if table is None else table
