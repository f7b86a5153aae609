"""The items of a served model: ids, texts, and which are near to one another by their words.

Shapes: N items.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqrec.basics.errors import UserError


class Catalogue:
    """Items 1 to N of a table with `raw_id`, text attributes and `count`."""

    def __init__(self, table: pl.DataFrame, attributes: Sequence[str], together: NDArray[Any] | None = None) -> None:
        """Take the items, and what `find_together` returns of them."""
        self.together = together
        self.attributes = tuple(attributes)
        self.raw_ids: list[str] = table["raw_id"].to_list()
        self._rows = {raw_id: row for row, raw_id in enumerate(self.raw_ids, 1)}
        first = table[attributes[0]].fill_null("") if attributes else table["raw_id"]
        self.titles: list[str] = [title or raw_id for title, raw_id in zip(first, self.raw_ids, strict=True)]
        self._texts = (
            table.select(pl.concat_str(pl.col(*attributes).fill_null(""), separator=" "))[:, 0] if attributes else first
        )
        self._lowered = (first + " " + table["raw_id"]).str.to_lowercase()
        self.counts = np.concatenate([[0], table["count"].to_numpy()])

    def __len__(self) -> int:
        return len(self.raw_ids)

    def find(self, raw_ids: Iterable[object]) -> tuple[NDArray[np.int64], list[str]]:
        """Return the rows of known ids in their order, and the ids that are unknown."""
        found, unknown = [], []
        for raw_id in map(str, raw_ids):
            row = self._rows.get(raw_id)
            if row is None:
                unknown.append(raw_id.encode(errors="replace").decode())
            else:
                found.append(row)
        return np.array(found, dtype=np.int64), unknown

    def search(self, words: str, limit: int) -> NDArray[np.int64]:
        """Return items whose title or id holds all words, the most popular first."""
        mask = pl.Series([True]).new_from_index(0, len(self))
        for word in words.lower().split():
            mask &= self._lowered.str.contains(word, literal=True)
        rows = mask.arg_true().to_numpy().astype(np.int64) + 1
        return rows[np.argsort(-self.counts[rows], kind="stable")[:limit]]

    def describe(self, row: int) -> dict[str, str]:
        """Return an item as a client sees it."""
        return {"id": self.raw_ids[row - 1], "title": self.titles[row - 1]}

    @cached_property
    def words(self) -> Any:
        """(N+1, V) sparse TF-IDF of the texts, rows of length 1; None where they have no word in common."""
        import scipy.sparse

        from seqrec.items.words import count_words

        if not self.attributes:
            return None
        try:
            words, _ = count_words([self._texts.to_list()])
        except UserError:
            return None
        return scipy.sparse.vstack([scipy.sparse.csr_array((1, words[0].shape[1]), dtype=np.float32), words[0]], "csr")

    def likeness(self, row: int, others: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the cosines of an item's words with those of others, (n,)."""
        if self.words is None:
            return np.zeros(len(others), dtype=np.float32)
        product = self.words[others] @ self.words[[row]].T
        return np.asarray(product.todense(), dtype=np.float32).reshape(-1)

    def togetherness(self, row: int, others: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the cosines of an item's users with those of others, (n,); 0 where it is none of the nearest."""
        if self.together is None:
            return np.zeros(len(others), dtype=np.float32)
        near = self.together[row]
        same = others[:, None] == near["item"]
        return np.where(same.any(axis=1), near["cosine"][same.argmax(axis=1)], 0).astype(np.float32)
