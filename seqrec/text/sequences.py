"""Histories of items as ragged batches of tokens.

A history is the class token followed by its items, the most recent first. No Python loop runs over users, items or
tokens. Shapes: B sequences, M items read by a batch, T tokens of a batch, L longest sequence.
Source: Li et al. (2023), "Text Is All You Need", section 2.2, https://arxiv.org/abs/2305.13731.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from seqrec.basics.arrays import ragged_arange
from seqrec.basics.errors import UserError
from seqrec.data.dataset import Histories
from seqrec.text.tokens import PAD_TYPE, ItemTokens


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """B sequences one after another: sequence b is rows `offsets[b]` to `offsets[b + 1]` of every field."""

    input_ids: Tensor
    """(T,) int32 vocabulary ids."""
    token_type_ids: Tensor
    """(T,) int32 in 0..2."""
    item_position_ids: Tensor
    """(T,) int32: 0 for the class token, then 1 for the most recent item, 2 for the one before."""
    offsets: Tensor
    """(B + 1,) int64, always on the CPU."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Return (B,) int64, the number of tokens of each sequence."""
        return self.offsets.diff()

    def to(self, device: torch.device | str) -> "TokenBatch":
        """Return the same batch on a device; the offsets stay where the encoder plans its work, on the CPU."""
        return self._map(lambda values: values.to(device, non_blocking=True))

    def pin_memory(self) -> "TokenBatch":
        """Return the same batch in page-locked memory, so that copying to a GPU overlaps with work."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "TokenBatch":
        return TokenBatch(
            change(self.input_ids), change(self.token_type_ids), change(self.item_position_ids), self.offsets
        )

    def padded(self, pad_token_id: int, max_item_embeddings: int = 51) -> dict[str, Tensor]:
        """Return the (B, L) int64 tensors that a padded encoder reads, padded on the right.

        Padding has the pad token, the last item position, type 3 and 0 in both masks.

        Args:
            pad_token_id: Vocabulary id of the padding.
            max_item_embeddings: Rows of the item-position table.
        """
        lengths = self.lengths.to(self.input_ids.device)
        width = int(lengths.max()) if len(self) else 0
        real = torch.arange(width, device=lengths.device) < lengths[:, None]  # (B, L)

        def fill(values: Tensor, padding: int) -> Tensor:
            out = torch.full(real.shape, padding, dtype=torch.int64, device=values.device)
            out[real] = values.long()
            return out

        global_attention = torch.zeros_like(real, dtype=torch.int64)
        global_attention[:, :1] = 1
        return {
            "input_ids": fill(self.input_ids, pad_token_id),
            "item_position_ids": fill(self.item_position_ids, max_item_embeddings - 1),
            "token_type_ids": fill(self.token_type_ids, PAD_TYPE),
            "attention_mask": real.long(),
            "global_attention_mask": global_attention,
        }


def build_sequences(
    items: NDArray[np.integer[Any]],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    item_tokens: ItemTokens,
    max_token_num: int = 1024,
    max_items: int = 50,
) -> TokenBatch:
    """Return the histories `items[starts[b]:ends[b]]` as one ragged batch.

    A sequence is the class token and then the items from the most recent backwards, at most `max_items`,
    cut at `max_token_num` tokens, possibly inside an item. An empty history is the class token alone.

    Args:
        items: (E,) item ids in 1..N, oldest first within a history.
        starts: (B,) first event of each history.
        ends: (B,) one past its last event.
        item_tokens: The catalogue.
        max_token_num: Longest sequence, class token included.
        max_items: Most items per sequence; the item-position table needs one row more.

    Raises:
        UserError: If an item id is not in 1..N.
    """
    rank, counts, owner = item_slots(starts, ends, max_items)
    ids = items[ends[owner] - 1 - rank]  # (M,)
    if len(ids) and not (ids.min() >= 1 and ids.max() <= item_tokens.num_items):
        raise UserError(
            f"a history holds item ids in {ids.min()}..{ids.max()}, the catalogue has 1.."
            f"{item_tokens.num_items}: tokenise the items of the same prepared dataset"
        )
    lengths = item_tokens.lengths[ids]
    before = np.cumsum(lengths) - lengths  # tokens of earlier items, over the whole batch
    first_slot = np.cumsum(counts) - counts
    base = np.append(before, lengths.sum())[first_slot]  # tokens of earlier sequences, (B,)
    start_in_sequence = before - base[owner] + 1
    take = np.clip(max_token_num - start_in_sequence, 0, lengths)

    source = ragged_arange(item_tokens.offsets[ids], take)
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(1 + np.bincount(owner, weights=take, minlength=len(counts)).astype(np.int64), out=offsets[1:])
    inside = np.ones(offsets[-1], dtype=bool)
    inside[offsets[:-1]] = False  # where the class tokens stand

    input_ids = np.full(offsets[-1], item_tokens.cls_token_id, dtype=np.int32)
    token_types = np.zeros(offsets[-1], dtype=np.int32)
    item_positions = np.zeros(offsets[-1], dtype=np.int32)
    input_ids[inside] = item_tokens.tokens[source]
    token_types[inside] = item_tokens.types[source]
    item_positions[inside] = np.repeat(rank + 1, take)
    return TokenBatch(*map(torch.from_numpy, (input_ids, token_types, item_positions, offsets)))


def item_sequences(items: NDArray[np.integer[Any]], item_tokens: ItemTokens, max_token_num: int = 1024) -> TokenBatch:
    """Return each item as a sequence, like a history of one item.

    Args:
        items: (B,) item ids in 1..N.
        item_tokens: The catalogue.
        max_token_num: Longest sequence, class token included.
    """
    starts = np.arange(len(items), dtype=np.int64)
    return build_sequences(items, starts, starts + 1, item_tokens, max_token_num, max_items=1)


class ItemTexts(NamedTuple):
    """The items of some histories as M sequences of their own."""

    texts: TokenBatch
    owner: Tensor
    """(M,) int64 history of each."""
    place: Tensor
    """(M,) int64, 0 for a history's most recent item."""
    became: Tensor
    """(T,) int64 token of `texts` that each token has become."""


def split_items(batch: TokenBatch) -> ItemTexts:
    """Return each item of some histories as a sequence of its own, as `item_sequences` does.

    Of an empty history its class token is left.
    """
    item = batch.item_position_ids.long().clamp(min=1)  # the class token goes with the most recent item
    owner = torch.arange(len(batch), device=item.device).repeat_interleave(batch.lengths.to(item.device))
    _, group, counts = (owner * (int(item.max()) + 1) + item).unique_consecutive(
        return_inverse=True, return_counts=True
    )
    last = counts.cumsum(0) - 1
    owner, place = owner[last], item[last] - 1
    lacks = (place > 0).long()  # a class token
    became = torch.arange(len(item), device=item.device) + lacks.cumsum(0)[group]
    lengths = counts + lacks

    def fill(values: Tensor) -> Tensor:
        """Return (T',) values, those of its history's class token where an item had none."""
        classes = values[batch.offsets[:-1].to(item.device)][owner].repeat_interleave(lengths)
        return classes.index_copy(0, became, values)

    texts = TokenBatch(
        fill(batch.input_ids),
        fill(batch.token_type_ids),
        fill(batch.item_position_ids.clamp(max=1)),
        F.pad(lengths.cumsum(0), (1, 0)).cpu(),
    )
    return ItemTexts(texts, owner, place, became)


def item_slots(
    starts: NDArray[np.int64], ends: NDArray[np.int64], max_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (M,) rank from the most recent, (B,) items per sequence and (M,) sequence of each item."""
    counts = np.minimum(np.asarray(ends, dtype=np.int64) - starts, max_items)
    owner = np.repeat(np.arange(len(counts)), counts)
    return ragged_arange(np.zeros_like(counts), counts), counts, owner


@dataclass(frozen=True, slots=True)
class HistoryReader:
    """Reads histories as the texts of their items."""

    items: ItemTokens
    max_token_num: int

    def __call__(self, histories: Histories, rows: NDArray[np.int64]) -> TokenBatch:
        """Return what the model reads of some histories."""
        return build_sequences(
            histories.items, histories.starts[rows], histories.ends[rows], self.items, self.max_token_num
        )

    def count_tokens(self, histories: Histories) -> NDArray[np.int64]:
        """Return (n,) how many tokens each history gives the model, the class token included."""
        if not len(histories):
            return np.zeros(0, dtype=np.int64)
        total = np.concatenate(([0], np.cumsum(self.items.lengths[histories.items])))
        lengths: NDArray[np.int64] = np.minimum(1 + total[histories.ends] - total[histories.starts], self.max_token_num)
        return lengths
