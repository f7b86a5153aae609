"""Recformer as a library: a recommender and a tokenizer that load and save as those of `transformers` do."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from Recformer.backbone import load_backbone
from Recformer.checkpoint import load_weights
from Recformer.config import RecformerConfig
from Recformer.model import RecformerModel
from seqrec.basics.errors import UserError
from seqrec.text.backbones import find_backbone, load_tokenizer
from seqrec.text.sequences import TokenBatch, build_sequences
from seqrec.text.tokens import ItemTokens, tokenize_items
from seqrec.text.weights import load_checkpoint, load_folder, save_folder

Text = tuple[list[int], list[int]]
"""An item's tokens, and the type of each."""


class RecformerTokenizer:
    """Turns histories of items, each an object of attributes, into what the model reads."""

    def __init__(self, tokenizer: Any, config: RecformerConfig) -> None:
        """Take a Hugging Face tokenizer and the limits of a configuration."""
        self.tokenizer, self.config = tokenizer, config

    @classmethod
    def from_pretrained(cls, name_or_path: str, config: RecformerConfig | None = None) -> "RecformerTokenizer":
        """Return the tokenizer of a backbone or of a saved Recformer, with its limits or those of a configuration."""
        tokenizer = load_tokenizer(find_backbone(name_or_path))
        return cls(tokenizer, RecformerConfig.from_pretrained(name_or_path) if config is None else config)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer's files beside a saved model."""
        self.tokenizer.save_pretrained(folder)

    def __call__(self, histories: Sequence[Sequence[Mapping[str, str]]]) -> TokenBatch:
        """Return histories, oldest item first, as one batch; an item alone is a history of one.

        Raises:
            UserError: If no item has any text.
        """
        texts = self.read_items(list(chain.from_iterable(histories)))
        return self.lay_out(texts, [len(history) for history in histories])

    def lay_out(self, texts: Sequence[Text], lengths: Sequence[int]) -> TokenBatch:
        """Return histories as one batch.

        Args:
            texts: What `read_items` returned, or the same as lists, history after history.
            lengths: Items of each history.
        """
        ends = np.cumsum(lengths, dtype=np.int64)
        pieces = [np.concatenate(part, dtype=np.int32, casting="unsafe") for part in zip(([], []), *texts, strict=True)]
        offsets = np.cumsum([0, 0, *(len(tokens) for tokens, _ in texts)])
        items = ItemTokens(pieces[0], pieces[1].astype(np.int8), offsets, int(self.tokenizer.cls_token_id))
        longest = self.config.max_item_embeddings - 1
        rows = np.arange(1, len(texts) + 1)
        return build_sequences(rows, ends - lengths, ends, items, self.config.max_token_num, longest)

    def read_items(self, items: Sequence[Mapping[str, str]]) -> list[Text]:
        """Return the tokens and token types of items, the attributes of each in its own order.

        Raises:
            UserError: If no item has any attribute.
        """
        alike: dict[tuple[str, ...], list[int]] = {}
        for row, item in enumerate(items):
            alike.setdefault(tuple(item), []).append(row)
        if items and not any(alike):
            raise UserError("no item has any attribute: give items as objects such as {'title': '...', 'brand': '...'}")
        texts: list[Text] = [([], [])] * len(items)
        for attributes, rows in alike.items():
            if not attributes:
                continue
            columns = {name: [str(items[row][name] or "") for row in rows] for name in attributes}
            table = pl.DataFrame({"item": np.arange(1, len(rows) + 1), **columns})
            made = tokenize_items(table, attributes, self.tokenizer, *self.config.text_limits)
            for row, a, b in zip(rows, made.offsets[1:-1], made.offsets[2:], strict=True):
                texts[row] = made.tokens[a:b].tolist(), made.types[a:b].tolist()
        return texts


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
        longformer = load_backbone(name_or_path, **changes)[0]
        model = cls(longformer.config)
        model.longformer = longformer
        table = load_folder(find_backbone(name_or_path)).get("item_embedding.weight")
        if table is not None:
            model.init_item_embedding(table)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write configuration, encoder and item table into a folder, as `RecformerModel.save_pretrained` does."""
        save_folder(Path(folder), self.config.to_dict(), self.state_dict())

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


def load_recommender(model: RecformerForSeqRec, path: Path) -> None:
    """Load a recommender's encoder, and its item table where the file has one, in place.

    A table of N rows, as the published code saves it, gets its row of zeros for the padding.

    Args:
        model: Its `config.item_num` is N.
        path: See `load_checkpoint`.

    Raises:
        UserError: If names or shapes don't fit, or the table has neither N nor N + 1 rows.
    """
    load_weights(model.longformer, path)
    table = load_checkpoint(path).get("item_embedding.weight")
    if table is None:
        return
    rows, N = len(table), model.config.item_num
    if rows not in (N, N + 1):
        raise UserError(f"{path} has vectors of {rows} items, the catalogue has {N}: it is of another dataset")
    model.init_item_embedding(table if rows == N + 1 else torch.cat([table.new_zeros(1, table.shape[1]), table]))
