"""Item texts as tokens, and histories of items as ragged batches of tokens.

An item is a list of (attribute, value) pairs. Keys and values are tokenised apart from each other, as raw
strings without special tokens; a history is the class token followed by its items, the most recent first.
Everything after the tokenizer is vectorised: no Python loop runs over users, items or tokens.

Shapes: N items, B sequences, M items read by a batch, T tokens of a batch, L longest sequence.
Source: Li et al. (2023), "Text Is All You Need", section 2.2, https://arxiv.org/abs/2305.13731.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from Recformer.config import RecformerConfig
from seqrec.cache import CachedArrays
from seqrec.dataset import Dataset
from seqrec.errors import UserError

log = logging.getLogger(__name__)

KEY_TYPE, VALUE_TYPE, PAD_TYPE = 1, 2, 3  # type 0 is the class token's
CHUNK = 65_536  # strings, or items, that are tokenised at a time, so that Python lists stay small


@dataclass(frozen=True, slots=True)
class ItemTokens:
    """The catalogue as tokens: item i is `tokens[offsets[i]:offsets[i + 1]]`; row 0 is padding and empty."""

    tokens: NDArray[np.int32]
    """(T,) int32 vocabulary ids."""
    types: NDArray[np.int8]
    """(T,) int8: 1 for the pieces of an attribute's name, 2 for those of its value."""
    offsets: NDArray[np.int64]
    """(N + 2,) int64."""
    cls_token_id: int
    """First token of every sequence."""

    @property
    def num_items(self) -> int:
        """Return N, the number of items without the padding row."""
        return len(self.offsets) - 2

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return (N + 1,) int64, the number of tokens of each item, 0 for padding."""
        return np.diff(self.offsets)


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """B sequences laid end to end: sequence b is rows `offsets[b]` to `offsets[b + 1]` of every field."""

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
        """Return the same batch in page-locked memory, from where a copy to a GPU can overlap with work."""
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


def tokenize_items(
    table: pl.DataFrame,
    attributes: Sequence[str],
    tokenizer: Any,
    max_attr_num: int = 3,
    max_attr_length: int = 32,
) -> ItemTokens:
    """Return the tokens of every item of the catalogue.

    Each attribute gives the pieces of its name and then those of its value, together at most
    `max_attr_length`. An attribute without text is no attribute: it gives no pieces, and the limit on
    their number counts only the others. A string that occurs in many items is tokenised once.

    Args:
        table: The items in order, with the columns `item` (1..N) and the attributes.
        attributes: Columns to read, in this order.
        tokenizer: A Hugging Face tokenizer with a class token.
        max_attr_num: Attributes read per item, the first ones with text.
        max_attr_length: Tokens per attribute, name and value together.

    Raises:
        UserError: If a column is missing, items are not 1..N in order, or a limit is below 1.
    """
    _check_table(table, attributes, max_attr_num, max_attr_length)
    pool, starts, lengths = _tokenize_columns(table, attributes, tokenizer, max_attr_length)

    # A segment is one key or one value: (items, attributes, 2), in the order of the final text.
    present = np.stack([(table[a].fill_null("") != "").to_numpy() for a in attributes], axis=1)
    present &= np.cumsum(present, axis=1) <= max_attr_num
    take = np.where(present[:, :, None], lengths, 0)
    take[:, :, 0] = np.minimum(take[:, :, 0], max_attr_length)
    take[:, :, 1] = np.minimum(take[:, :, 1], max_attr_length - take[:, :, 0])

    source = ragged_arange(starts.reshape(-1), take.reshape(-1))
    types = np.tile(np.array([KEY_TYPE, VALUE_TYPE], dtype=np.int8), take.size // 2)
    offsets = np.zeros(len(table) + 2, dtype=np.int64)
    np.cumsum(take.sum(axis=(1, 2)), out=offsets[2:])
    return ItemTokens(pool[source], np.repeat(types, take.reshape(-1)), offsets, int(tokenizer.cls_token_id))


def load_item_tokens(dataset: Dataset, tokenizer: Any, max_attr_num: int = 3, max_attr_length: int = 32) -> ItemTokens:
    """Return the tokens of a prepared dataset's items, memory-mapped; made where they are not there yet.

    They lie in `.tokens/` beside the dataset, or in the user's cache where nothing can be written there, under a name
    that the texts, the tokenizer and the limits decide.

    Args:
        dataset: The dataset; its text attributes are read in their order.
        tokenizer: See `tokenize_items`, as are the others.
        max_attr_num: See above.
        max_attr_length: See above.
    """
    table = dataset.item_table()
    key = {
        "texts": hashlib.sha256((dataset.path / "items.parquet").read_bytes()).hexdigest(),
        "attributes": dataset.attributes,
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "limits": [max_attr_num, max_attr_length],
        "format": 1,
    }

    def make_part(part: int) -> dict[str, NDArray[Any]]:
        rows = table.slice(part * CHUNK, CHUNK)
        rows = rows.with_columns(item=pl.int_range(1, len(rows) + 1))
        made = tokenize_items(rows, dataset.attributes, tokenizer, max_attr_num, max_attr_length)
        return {"tokens": made.tokens, "types": made.types, "lengths": made.lengths[1:].astype(np.int32)}

    parts = max(1, -(-len(table) // CHUNK))
    cache = CachedArrays(_token_folder(dataset), key, parts)
    arrays = cache.load(make_part, f"tokenising {dataset.name}")
    lengths = arrays["lengths"]
    if empty := int((lengths == 0).sum()):
        log.warning("%d of %d items have no text: their vectors are all the same", empty, len(table))
    offsets = np.zeros(len(lengths) + 2, dtype=np.int64)
    np.cumsum(lengths, out=offsets[2:])
    return ItemTokens(arrays["tokens"], arrays["types"], offsets, int(tokenizer.cls_token_id))


class RecformerTokenizer:
    """Turns histories of items, each an object of attributes, into what the model reads."""

    def __init__(self, tokenizer: Any, config: RecformerConfig) -> None:
        """Take a Hugging Face tokenizer and the limits of a configuration."""
        self.tokenizer, self.config = tokenizer, config

    @classmethod
    def from_pretrained(cls, name_or_path: str, config: RecformerConfig | None = None) -> "RecformerTokenizer":
        """Return the tokenizer of a backbone or of a saved Recformer, with its limits or those of a configuration."""
        from Recformer.backbone import find_backbone, load_tokenizer

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
        items = list(chain.from_iterable(histories))
        tokens = self._tokenize(items)
        ends = np.cumsum([len(history) for history in histories])
        starts = np.concatenate([[0], ends[:-1]])
        longest = self.config.max_item_embeddings - 1
        return build_sequences(np.arange(1, len(items) + 1), starts, ends, tokens, self.config.max_token_num, longest)

    def _tokenize(self, items: Sequence[Mapping[str, str]]) -> ItemTokens:
        """Return the tokens of items, the attributes of each in its own order."""
        alike: dict[tuple[str, ...], list[int]] = {}
        for row, item in enumerate(items):
            alike.setdefault(tuple(item), []).append(row)
        if not any(alike):
            raise UserError("no item has any attribute: give items as objects such as {'title': '...', 'brand': '...'}")
        texts: list[tuple[NDArray[np.int32], NDArray[np.int8]]] = [(np.zeros(0, np.int32), np.zeros(0, np.int8))]
        texts *= len(items)
        for attributes, rows in alike.items():
            if not attributes:
                continue
            columns = {name: [str(items[row][name] or "") for row in rows] for name in attributes}
            table = pl.DataFrame({"item": np.arange(1, len(rows) + 1), **columns})
            limits = self.config.max_attr_num, self.config.max_attr_length
            made = tokenize_items(table, attributes, self.tokenizer, *limits)
            for row, a, b in zip(rows, made.offsets[1:-1], made.offsets[2:], strict=True):
                texts[row] = made.tokens[a:b], made.types[a:b]
        tokens, types = (np.concatenate(part) for part in zip(*texts, strict=True))
        offsets = np.cumsum([0, 0, *(len(part) for part, _ in texts)])
        return ItemTokens(tokens, types, offsets, int(self.tokenizer.cls_token_id))


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
    rank, counts, owner = _item_slots(starts, ends, max_items)
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
    """Return each item as a sequence of its own, as `build_sequences` makes a history of one.

    Args:
        items: (B,) item ids in 1..N.
        item_tokens: The catalogue.
        max_token_num: Longest sequence, class token included.
    """
    starts = np.arange(len(items), dtype=np.int64)
    return build_sequences(items, starts, starts + 1, item_tokens, max_token_num, max_items=1)


def ragged_arange(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the integers starts[i], ..., starts[i] + lengths[i] - 1 for every i, laid end to end."""
    shift = starts - (np.cumsum(lengths) - lengths)
    values: NDArray[np.int64] = np.arange(lengths.sum(), dtype=np.int64)
    values += np.repeat(shift, lengths)
    return values


def _token_folder(dataset: Dataset) -> Path:
    """Return the folder of the tokens of a dataset's items."""
    beside = dataset.path.parent / ".tokens"
    if os.access(beside if beside.is_dir() else beside.parent, os.W_OK):
        return beside
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seqrec" / "tokens"


def _item_slots(
    starts: NDArray[np.int64], ends: NDArray[np.int64], max_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (M,) rank from the most recent, (B,) items per sequence and (M,) sequence of each item."""
    counts = np.minimum(np.asarray(ends, dtype=np.int64) - starts, max_items)
    owner = np.repeat(np.arange(len(counts)), counts)
    return ragged_arange(np.zeros_like(counts), counts), counts, owner


def _check_table(table: pl.DataFrame, attributes: Sequence[str], *limits: int) -> None:
    missing = [a for a in attributes if a not in table.columns]
    if missing or not attributes:
        raise UserError(
            f"attributes {list(attributes)} are not all columns of the item table {table.columns}: "
            "name existing ones, or prepare the dataset again with scripts/prepare.py --attributes"
        )
    if (table["item"].to_numpy() != np.arange(1, len(table) + 1)).any():
        raise UserError("the item table must hold items 1..N in order: run scripts/prepare.py again")
    if min(limits) < 1:
        raise UserError(f"max_attr_num and max_attr_length must be at least 1, got {limits}")


def _tokenize_columns(
    table: pl.DataFrame, attributes: Sequence[str], tokenizer: Any, max_attr_length: int
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Return a pool of tokens, and where each key and value lies in it: starts and lengths, (N, A, 2)."""
    texts = [table[a].fill_null("").cast(pl.Categorical) for a in attributes]
    strings = list(attributes)
    codes = np.empty((len(table), len(attributes), 2), dtype=np.int64)
    for index, column in enumerate(texts):
        unique = column.unique(maintain_order=True).cast(pl.String)
        order = pl.DataFrame({"text": unique, "code": np.arange(len(unique)) + len(strings)})
        joined = column.cast(pl.String).to_frame("text").join(order, on="text", maintain_order="left")
        codes[:, index, 0] = index
        codes[:, index, 1] = joined["code"].to_numpy()
        strings.extend(unique)
    lengths, pool = [], []
    for begin in range(0, len(strings), CHUNK):
        pieces = tokenizer(
            strings[begin : begin + CHUNK],
            add_special_tokens=False,
            truncation=True,
            max_length=max_attr_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        lengths.append(np.fromiter(map(len, pieces), np.int64, len(pieces)))
        pool.append(np.fromiter(chain.from_iterable(pieces), np.int32))
    length = np.concatenate(lengths)
    start = np.cumsum(length) - length
    return np.concatenate(pool), start[codes], length[codes]
