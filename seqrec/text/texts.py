"""Items as one text each, in the tokens of any language model. Shapes: N items, B of a batch, T tokens of all of them.

The text is the item's attributes in their order, cut to a number of tokens; special tokens are the tokenizer's own.
"""

import hashlib
import logging
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec.basics.arrays import ragged_arange
from seqrec.basics.cache import CachedArrays
from seqrec.basics.errors import UserError
from seqrec.data.dataset import Dataset
from seqrec.text.tokens import CHUNK, token_folder

log = logging.getLogger(__name__)


class Texts(NamedTuple):
    """B texts one after another: text b is rows `offsets[b]` to `offsets[b + 1]`."""

    values: Tensor
    """(T,) int64 token ids, or (T, D) states of the tokens after some blocks."""
    offsets: Tensor
    """(B + 1,) int64, always on the CPU."""

    def to(self, device: torch.device | str) -> "Texts":
        """Return the same on a device; the offsets stay where the work is planned."""
        return Texts(self.values.to(device, non_blocking=True), self.offsets)


@dataclass(frozen=True, slots=True)
class TextTokens:
    """The catalogue as tokens: item i is `tokens[offsets[i]:offsets[i + 1]]`; row 0 is padding and empty."""

    tokens: NDArray[np.int32]
    """(T,) int32 vocabulary ids."""
    offsets: NDArray[np.int64]
    """(N + 2,) int64."""

    @property
    def num_items(self) -> int:
        """Return N."""
        return len(self.offsets) - 2

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return (N + 1,) int64, tokens of each item, at least 1 but for padding."""
        return np.diff(self.offsets)

    def places(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of the tokens of (B,) items, and (B + 1,) where each item's begin among them."""
        lengths = self.lengths[ids]
        return ragged_arange(self.offsets[ids], lengths), np.concatenate(([0], np.cumsum(lengths)))

    def read(self, ids: NDArray[np.int64]) -> Texts:
        """Return the texts of (B,) items in 1..N."""
        rows, offsets = self.places(ids)
        return Texts(torch.from_numpy(self.tokens[rows].astype(np.int64)), torch.from_numpy(offsets))

    def sha256(self) -> str:
        """Return a hash of all texts."""
        digest = hashlib.sha256(np.ascontiguousarray(self.offsets).data)
        digest.update(np.ascontiguousarray(self.tokens).data)
        return digest.hexdigest()


def load_texts(
    dataset: Dataset,
    tokenizer: Any,
    max_tokens: int,
    prompt: str = "",
    name_attributes: bool = False,
    specials: bool = True,
) -> TextTokens:
    """Return the texts of a prepared dataset's items in tokens, memory-mapped; make them if they are missing.

    Args:
        dataset: With at least one text attribute.
        tokenizer: A Hugging Face tokenizer.
        max_tokens: Tokens of a text, special ones included.
        prompt: Stands before every text.
        name_attributes: Whether an attribute's name stands before its text.
        specials: Whether the tokenizer adds its special tokens; without them, a text may have no token.

    Raises:
        UserError: If the dataset has no text, or special tokens leave no room for it.
    """
    if not dataset.attributes:
        raise UserError(f"{dataset.path} has no text: prepare it again with its items' texts, or give --input_type id")
    if max_tokens <= len(tokenizer("")["input_ids"]):
        raise UserError(f"--tokenized_len {max_tokens} leaves no room for text beside the tokenizer's special tokens")
    table = dataset.item_table()
    key = {
        "texts": hashlib.sha256((dataset.path / "items.parquet").read_bytes()).hexdigest(),
        "attributes": dataset.attributes,
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "max_tokens": max_tokens,
        "format": "one text",
        **({"prompt": prompt} if prompt else {}),
        **({"names": True} if name_attributes else {}),
        **({} if specials else {"specials": False}),
    }
    parts = [pl.col(name).fill_null("") for name in dataset.attributes]
    if name_attributes:
        names = zip(dataset.attributes, parts, strict=True)
        parts = [pl.when(part != "").then(pl.lit(f"{name}: ") + part).otherwise(pl.lit("")) for name, part in names]
    bare = table.select(pl.concat_str(parts, separator=" ").str.strip_chars()).to_series()
    texts = bare if not prompt else pl.select(pl.lit(prompt) + bare).to_series()

    def make_part(part: int) -> dict[str, NDArray[Any]]:
        pieces = tokenizer(
            texts[part * CHUNK : (part + 1) * CHUNK].to_list(),
            truncation=True,
            max_length=max_tokens,
            return_attention_mask=False,
            add_special_tokens=specials,
        )["input_ids"]
        if specials:
            pieces = [piece or [_for_nothing(tokenizer)] for piece in pieces]
        return {
            "tokens": np.fromiter(chain.from_iterable(pieces), np.int32),
            "lengths": np.fromiter(map(len, pieces), np.int32, len(pieces)),
        }

    cache = CachedArrays(token_folder(dataset), key, max(1, -(-len(table) // CHUNK)))
    arrays = cache.load(make_part, f"tokenising {dataset.name}")
    if empty := int((bare == "").sum()):
        log.warning("%d of %d items have no text: their vectors are all the same", empty, len(table))
    offsets = np.zeros(len(table) + 2, dtype=np.int64)
    np.cumsum(arrays["lengths"], out=offsets[2:])
    return TextTokens(arrays["tokens"], offsets)


def _for_nothing(tokenizer: Any) -> int:
    """Return the token that stands for an empty text, where the tokenizer adds none."""
    names = (tokenizer.cls_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, 0)
    return int(next(token for token in names if token is not None))
