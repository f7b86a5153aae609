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
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqrec.basics.arrays import ragged_arange
from seqrec.basics.cache import CachedArrays
from seqrec.basics.errors import UserError
from seqrec.basics.paths import user_cache
from seqrec.data.dataset import Dataset
from seqrec.text.options import EmptyAttributes

log = logging.getLogger(__name__)
KEY_TYPE, VALUE_TYPE, PAD_TYPE = 1, 2, 3  # type 0 is the class token's
CHUNK = 16_384  # strings, or items, tokenised at a time: a tokenizer keeps several KiB of each meanwhile


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


def tokenize_items(
    table: pl.DataFrame,
    attributes: Sequence[str],
    tokenizer: Any,
    max_attr_num: int = 3,
    max_attr_length: int = 32,
    empty_attributes: EmptyAttributes = "drop",
) -> ItemTokens:
    """Return the tokens of every item of the catalogue.

    Each attribute becomes the pieces of its name and then of its value, together at most `max_attr_length`. A string
    that occurs in many items is tokenised once.

    Args:
        table: The items in order, with the columns `item` (1..N) and the attributes.
        attributes: Columns to read, in this order.
        tokenizer: A Hugging Face tokenizer with a class token.
        max_attr_num: Attributes read per item, the first ones.
        max_attr_length: Tokens per attribute, name and value together.
        empty_attributes: Whether attributes without text are skipped, and do not count, or read as their names.

    Raises:
        UserError: If a column is missing, items are not 1..N in order, or a limit is below 1.
    """
    _check_table(table, attributes, max_attr_num, max_attr_length)
    pool, starts, lengths = _tokenize_columns(table, attributes, tokenizer, max_attr_length)

    # A segment is one key or one value: (items, attributes, 2), in the order of the final text.
    present = np.ones((len(table), len(attributes)), dtype=bool)
    if empty_attributes == "drop":
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


def load_item_tokens(
    dataset: Dataset,
    tokenizer: Any,
    max_attr_num: int = 3,
    max_attr_length: int = 32,
    empty_attributes: EmptyAttributes = "drop",
) -> ItemTokens:
    """Return the tokens of a prepared dataset's items, memory-mapped; make them if they are missing.

    They lie in `.tokens/` beside the dataset, or in the user's cache where nothing can be written there, under a name
    that the texts, the tokenizer and the limits decide.

    Args:
        dataset: The dataset; its text attributes are read in their order.
        tokenizer: See `tokenize_items`, as are the others.
        max_attr_num: See above.
        max_attr_length: See above.
        empty_attributes: See above.
    """
    table = dataset.item_table()
    key = {
        "texts": hashlib.sha256((dataset.path / "items.parquet").read_bytes()).hexdigest(),
        "attributes": dataset.attributes,
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "limits": [max_attr_num, max_attr_length],
        "format": 1,
    } | ({} if empty_attributes == "drop" else {"empty_attributes": empty_attributes})

    def make_part(part: int) -> dict[str, NDArray[Any]]:
        rows = table.slice(part * CHUNK, CHUNK)
        rows = rows.with_columns(item=pl.int_range(1, len(rows) + 1))
        limits = max_attr_num, max_attr_length, empty_attributes
        made = tokenize_items(rows, dataset.attributes, tokenizer, *limits)
        return {"tokens": made.tokens, "types": made.types, "lengths": made.lengths[1:].astype(np.int32)}

    parts = max(1, -(-len(table) // CHUNK))
    cache = CachedArrays(token_folder(dataset), key, parts)
    arrays = cache.load(make_part, f"tokenising {dataset.name}")
    lengths = arrays["lengths"]
    if empty := int((lengths == 0).sum()):
        log.warning("%d of %d items have no text: their vectors are all the same", empty, len(table))
    offsets = np.zeros(len(lengths) + 2, dtype=np.int64)
    np.cumsum(lengths, out=offsets[2:])
    return ItemTokens(arrays["tokens"], arrays["types"], offsets, int(tokenizer.cls_token_id))


def token_folder(dataset: Dataset) -> Path:
    """Return the folder of the tokens of a dataset's items."""
    return beside_dataset(dataset, ".tokens") or user_cache() / "tokens"


def beside_dataset(dataset: Dataset, name: str) -> Path | None:
    """Return the folder of that name beside a dataset; None where nothing can be written there."""
    beside = dataset.path.parent / name
    return beside if os.access(beside if beside.is_dir() else beside.parent, os.W_OK) else None


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
