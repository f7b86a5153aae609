"""The items of a served model: ids, texts, and which are near to one another by their words.

Shapes: N items of the model, M items added since, which are N+1 to N+M.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

NEIGHBOURS = 3
"""Items whose vectors make that of a new one; see docs/serving.md."""


def mean_vector(
    vectors: NDArray[np.float32], near: NDArray[np.int64], cosines: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the (W,) vector of an item that no user had: the mean of its neighbours' by the cosines, at their length.

    A mean of vectors is shorter than these, and an item of a short one is never recommended.
    Source: Gantner et al. (2010), Learning attribute-to-feature mappings for cold-start recommendations,
    https://doi.org/10.1109/ICDM.2010.129, section III.
    """
    weights = cosines / cosines.sum()
    mean = weights @ vectors[near]
    length = weights @ np.linalg.norm(vectors[near], axis=1)
    return np.asarray(mean * (length / max(float(np.linalg.norm(mean)), 1e-12)), dtype=np.float32)


class Catalogue:
    """Items 1 to N of a table with `raw_id`, text attributes and `count`, and items that are added."""

    def __init__(self, table: pl.DataFrame, attributes: Sequence[str], together: NDArray[Any] | None = None) -> None:
        """Take the items, and what `find_together` returns of them."""
        self.together, self.attributes = together, tuple(attributes)
        self.num_trained = len(table)
        self.raw_ids: list[str] = table["raw_id"].to_list()
        self._rows = {raw_id: row for row, raw_id in enumerate(self.raw_ids, 1)}
        first = table[attributes[0]].fill_null("") if attributes else table["raw_id"]
        self.titles: list[str] = [title or raw_id for title, raw_id in zip(first, self.raw_ids, strict=True)]
        self._texts = (
            table.select(pl.concat_str(pl.col(*attributes).fill_null(""), separator=" "))[:, 0] if attributes else first
        )
        self._lowered = (first + " " + table["raw_id"]).str.to_lowercase()
        self.counts = np.concatenate([[0], table["count"].to_numpy()])
        self._added_words: list[Any] = []

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
        wanted = words.lower().split()
        mask = pl.Series([True]).new_from_index(0, self.num_trained)
        for word in wanted:
            mask &= self._lowered.str.contains(word, literal=True)
        added = [
            row
            for row in range(self.num_trained + 1, len(self) + 1)
            if all(word in f"{self.titles[row - 1]} {self.raw_ids[row - 1]}".lower() for word in wanted)
        ]
        rows = np.concatenate([mask.arg_true().to_numpy() + 1, added]).astype(np.int64)
        return rows[np.argsort(-self.counts[rows], kind="stable")[:limit]]

    def describe(self, row: int) -> dict[str, str]:
        """Return an item as a client sees it."""
        return {"id": self.raw_ids[row - 1], "title": self.titles[row - 1]}

    @cached_property
    def _words(self) -> tuple[Any, Any] | None:
        """What counts words, and (N+1, V) sparse TF-IDF with rows of length 1; None if no word occurs twice."""
        import scipy.sparse

        from seqrec.items.words import make_vectorizer

        if not self.attributes:
            return None
        vectorizer = make_vectorizer()
        try:
            table = vectorizer.fit_transform(self._texts.to_list())
        except ValueError:
            return None
        empty = scipy.sparse.csr_array((1, table.shape[1]), dtype=np.float32)
        return vectorizer, scipy.sparse.vstack([empty, table], "csr")

    def read(self, texts: Mapping[str, str]) -> Any:
        """Return the words of a text by attributes as (1, V) sparse TF-IDF; None if none is known."""
        if self._words is None:
            return None
        vectorizer, _ = self._words
        row = vectorizer.transform([" ".join(texts.get(name, "") for name in self.attributes)])
        return row if row.nnz else None

    def words_of(self, row: int) -> Any:
        """Return the words of an item as `read` does."""
        words = None if self._words is None else self._words_of(np.array([row]))
        return words if words is not None and words.nnz else None

    def nearest_texts(self, words: Any, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return at most k of the items 1 to N whose words are nearest to some of `read`, and their cosines above 0."""
        assert self._words is not None
        product = (self._words[1] @ words.T).tocoo()
        order = np.argsort(-product.data, kind="stable")[:k]
        return product.row[order].astype(np.int64), product.data[order].astype(np.float32)

    def add(self, raw_id: str, texts: Mapping[str, str], words: Any) -> int:
        """Add an item and return its row.

        Args:
            raw_id: Its id, which no item has.
            texts: By attributes.
            words: What `read` returns of them.
        """
        title = texts.get(self.attributes[0], "") if self.attributes else ""
        self._added_words.append(words)
        self.counts = np.append(self.counts, 0)
        self.titles.append(title or raw_id)
        self.raw_ids.append(raw_id)
        self._rows[raw_id] = len(self.raw_ids)
        return len(self.raw_ids)

    def _words_of(self, rows: NDArray[np.int64]) -> Any:
        import scipy.sparse

        assert self._words is not None
        table = self._words[1]
        if (rows <= self.num_trained).all():
            return table[rows]
        added = self._added_words
        parts = [
            table[[row]] if row <= self.num_trained else added[row - self.num_trained - 1] for row in rows.tolist()
        ]
        return scipy.sparse.vstack(parts, "csr")

    def likeness(self, row: int, others: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the cosines of an item's words with those of others, (n,)."""
        if self._words is None:
            return np.zeros(len(others), dtype=np.float32)
        product = self._words_of(others) @ self._words_of(np.array([row])).T
        return np.asarray(product.todense(), dtype=np.float32).reshape(-1)

    def togetherness(self, row: int, others: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the cosines of an item's users with those of others, (n,); 0 where it is none of the nearest."""
        if self.together is None or row > self.num_trained:
            return np.zeros(len(others), dtype=np.float32)
        near = self.together[row]
        same = others[:, None] == near["item"]
        return np.where(same.any(axis=1), near["cosine"][same.argmax(axis=1)], 0).astype(np.float32)
