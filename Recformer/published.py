"""Recformer with the calls of the published code: padded inputs, a configuration whose fields are assigned.

The weights and what is computed are those of `model.py`; this module translates. As in the published code, and unlike
anywhere else here, rows of the item table, labels and candidates count from 0 and there is no row for padding.

Shapes: B sequences, L longest one, D width, N items, C candidates.
Source: the calls of https://github.com/AaronHeee/RecFormer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from Recformer import config as ours
from Recformer import library, model
from seqrec.basics.errors import UserError
from seqrec.text.backbones import find_backbone, load_tokenizer
from seqrec.text.sequences import TokenBatch
from seqrec.text.tokens import PAD_TYPE

UNREAD = {"model_type", "mlm_weight", "sep_token_id", "finetune_negative_sample_size"}
"""Fields of the published configuration that the encoder has no use for."""


class RecformerConfig(SimpleNamespace):
    """Fields of a configuration, to be assigned until a model is made."""

    @classmethod
    def from_pretrained(cls, name_or_path: str, **changes: Any) -> "RecformerConfig":
        """Return the configuration of a backbone; see `Recformer.config.RecformerConfig`."""
        changes = {"empty_attributes": "keep"} | changes  # the published tokenizer reads their names
        return cls(**ours.RecformerConfig.from_pretrained(name_or_path, **changes).to_dict())

    def freeze(self) -> ours.RecformerConfig:
        """Return the configuration as it is now, checked.

        Raises:
            UserError: If a field has an unknown name or a bad value.
        """
        names = UNREAD | {field.name for field in fields(ours.RecformerConfig)}
        if unknown := sorted(vars(self).keys() - names):
            close = ", ".join(name for wrong in unknown for name in get_close_matches(wrong, names, 1))
            raise UserError(
                f"RecformerConfig has no {', '.join(unknown)}" + (f": did you mean {close}?" if close else "")
            )
        return ours.RecformerConfig.from_dict(vars(self))


class RecformerTokenizer:
    """Turns histories of items into the fields that a model reads, as lists or tensors."""

    def __init__(self, tokenizer: Any, config: RecformerConfig) -> None:
        """Take a Hugging Face tokenizer, and a configuration whose limits are read at every call."""
        self.tokenizer, self.config = tokenizer, config

    @classmethod
    def from_pretrained(cls, name_or_path: str, config: RecformerConfig | None = None) -> "RecformerTokenizer":
        """Return the tokenizer of a backbone, with a configuration's limits."""
        config = RecformerConfig.from_pretrained(name_or_path) if config is None else config
        return cls(load_tokenizer(find_backbone(name_or_path)), config)

    def __call__(self, items: Sequence[Any], pad_to_max: bool = False, return_tensor: bool = False) -> dict[str, Any]:
        """Return the fields of one history, a list of items, or of a list of histories, which are padded."""
        batched = len(items) > 0 and isinstance(items[0], list | tuple)
        encoded = self.batch_encode(items, pad_to_max=pad_to_max) if batched else self.encode(items)
        return {name: torch.tensor(values) for name, values in encoded.items()} if return_tensor else encoded

    def encode_item(self, item: Mapping[str, str]) -> library.Text:
        """Return the tokens and the token types of an item."""
        return self._ours.read_items([item])[0]

    def encode(self, items: Sequence[Any], encode_item: bool = True) -> dict[str, list[int]]:
        """Return the fields of one history.

        Args:
            items: Oldest first.
            encode_item: Whether they are objects of attributes; else they are what `encode_item` returned.
        """
        tokenizer = self._ours
        batch = tokenizer.lay_out(tokenizer.read_items(items) if encode_item else items, [len(items)])
        return {name: values[0].tolist() for name, values in batch.padded(0).items()}

    def batch_encode(
        self, item_batch: Sequence[Sequence[Any]], encode_item: bool = True, pad_to_max: bool = False
    ) -> dict[str, list[list[int]]]:
        """Return the fields of histories, padded; see `encode` and `padding`."""
        return self.padding([self.encode(items, encode_item) for items in item_batch], pad_to_max)

    def padding(self, item_batch: Sequence[dict[str, list[int]]], pad_to_max: bool = False) -> dict[str, Any]:
        """Return the fields of histories, padded on the right to the longest, or to `max_token_num`."""
        width = max(len(one["input_ids"]) for one in item_batch)
        width = self.config.max_token_num if pad_to_max else width
        paddings = {
            "input_ids": self.config.pad_token_id,
            "item_position_ids": self.config.max_item_embeddings - 1,
            "token_type_ids": PAD_TYPE,
            "attention_mask": 0,
            "global_attention_mask": 0,
        }
        return {
            name: [one[name] + [padding] * (width - len(one[name])) for one in item_batch]
            for name, padding in paddings.items()
        }

    @property
    def _ours(self) -> library.RecformerTokenizer:
        return library.RecformerTokenizer(self.tokenizer, self.config.freeze())


class Output(NamedTuple):
    """What the encoder returns."""

    last_hidden_state: Tensor
    """(B, L, D), zeros for padding."""
    pooler_output: Tensor
    """(B, D)."""


class RecformerModel(model.RecformerModel):
    """The encoder on padded inputs."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__(config.freeze())

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor,
        global_attention_mask: Tensor,
        token_type_ids: Tensor,
        item_position_ids: Tensor,
    ) -> Output:
        """Return one vector per token and one per sequence, of (B, L) int64 fields or of one sequence's (L,).

        Raises:
            UserError: If padding is not on the right, or another token than the first has global attention.
        """
        named = (input_ids, attention_mask, global_attention_mask, token_type_ids, item_position_ids)
        ids, attention, globally, types, positions = map(torch.atleast_2d, named)
        real = attention.bool()
        lengths = real.sum(1)
        columns = torch.arange(ids.shape[1], device=ids.device)
        if (real != (columns < lengths[:, None])).any() or (globally != (columns == 0)).any():
            raise UserError(
                "attention_mask must be 1 for tokens and 0 for the padding on their right, global_attention_mask 1 for "
                "the first token alone: take both from RecformerTokenizer"
            )
        offsets = F.pad(lengths.cumsum(0), (1, 0)).cpu()
        batch = TokenBatch(ids[real].int(), types[real].int(), positions[real].int(), offsets)
        encoded = super().forward(batch, all_tokens=True)
        assert encoded.tokens is not None
        hidden = encoded.tokens.new_zeros(*ids.shape, self.width)
        hidden[real] = encoded.tokens
        return Output(hidden, encoded.pooled)


class RecformerForSeqRec(nn.Module):
    """Scores items by the cosine of their vectors with the history's, divided by the temperature."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        self.longformer = RecformerModel(config)
        self.config = self.longformer.config
        self.num_negatives = int(vars(config).get("finetune_negative_sample_size", 0))
        self.item_embedding: nn.Embedding | None = None

    def init_item_embedding(self, embeddings: Tensor | None = None) -> None:
        """Set the item table: given vectors, (N, D), are frozen, None makes a new table of `item_num` rows."""
        if embeddings is not None:
            self.item_embedding = nn.Embedding.from_pretrained(embeddings, freeze=True)
            return
        self.item_embedding = nn.Embedding(self.config.item_num, self.config.hidden_size)
        nn.init.normal_(self.item_embedding.weight, std=self.config.initializer_range)

    def similarity_score(self, pooler_output: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Return the scores of (B, D) histories for all items, (B, N), or for (B, C) candidates, (B, C).

        Raises:
            UserError: If there is no item table.
        """
        if self.item_embedding is None:
            raise UserError("the item table is not set: call init_item_embedding first")
        rows = self.item_embedding.weight[None] if candidates is None else self.item_embedding(candidates)
        users = F.normalize(pooler_output.float(), dim=-1)
        return (F.normalize(rows, dim=-1) @ users[:, :, None]).squeeze(-1) / self.config.temp

    def forward(self, *, labels: Tensor | None = None, candidates: Tensor | None = None, **fields: Tensor) -> Tensor:
        """Return scores as `similarity_score` does; or with `labels` the mean loss.

        With `finetune_negative_sample_size` K above 0 the loss is over the target and K sampled items, else over all.

        Args:
            labels: (B,) int64 rows of the item table.
            candidates: (B, C) int64 rows to score, without labels; all by default.
            **fields: See `RecformerModel.forward`.
        """
        users = self.longformer(**fields).pooler_output
        if labels is None:
            return self.similarity_score(users, candidates)
        if self.num_negatives <= 0:
            return F.cross_entropy(self.similarity_score(users), labels)
        negatives = torch.randint(self.config.item_num, (len(labels), self.num_negatives), device=labels.device)
        scores = self.similarity_score(users, torch.cat([labels[:, None], negatives], dim=1))
        return F.cross_entropy(scores, torch.zeros_like(labels))
