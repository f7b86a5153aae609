"""Exported models that answer, without PyTorch.

Shapes: N items of the model, M items added since, B queries, W width of a table.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.basics.files import hash_file
from seqrec.basics.opening import read_array, read_parquet
from seqrec.serving import folder as files
from seqrec.serving.answers import Answer, Answering, Placed, Query, best_of, by_cosine
from seqrec.serving.catalogue import Catalogue, mean_vector
from seqrec.serving.encoder import open_graph, read_users
from seqrec.serving.index import read_index, search

SCORES = 1 << 22
"""Scores of all items that are in memory at one time."""
EXACT_ITEMS = 5_000
"""Up to so many items, all are scored."""
MOST_LEFT_OUT = 1_000
"""For a query that leaves out more, all items are scored: an index would search so much further for its whole batch."""


class Vectors:
    """(N+1, W) vectors in a file, and those of M items added since, in memory."""

    def __init__(self, trained: NDArray[np.float32]) -> None:
        self.trained = trained
        self.added = np.zeros((0, trained.shape[1]), dtype=np.float32)

    @cached_property
    def _trained_lengths(self) -> NDArray[np.float32]:
        return np.asarray(np.linalg.norm(self.trained, axis=1))

    def lengths(self) -> NDArray[np.float32]:
        """Return (N+1+M) lengths."""
        return np.concatenate([self._trained_lengths, np.linalg.norm(self.added, axis=1)])

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        last = len(self.trained) - 1
        found: NDArray[np.float32] = self.trained[np.minimum(rows, last)]
        if len(self.added):
            new = rows > last
            found[new] = self.added[rows[new] - last - 1]
        return found

    def products(self, users: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (B, N+1+M) products with (B, W) users."""
        known = users @ self.trained.T
        return np.concatenate([known, users @ self.added.T], axis=1) if len(self.added) else known

    def append(self, vector: NDArray[np.float32]) -> None:
        """Add the vector of item N+M+1."""
        self.added = np.concatenate([self.added, vector[None]])


class Exported(Answering):
    """An exported model: its graph reads the histories, its index finds the items."""

    def __init__(self, folder: Path, form: str | None = None, search: str = "auto", num_threads: int = 1) -> None:
        """Open an export.

        Args:
            folder: That `scripts/export.py` wrote.
            form: One of its forms; by default the first.
            search: How items are found: index, all (all are scored), or auto, which scores all of a small catalogue.
            num_threads: Threads of the user encoder.

        Raises:
            UserError: If its files do not belong together, or it lacks the form.
        """
        manifest = files.read_manifest(folder)
        form = form or manifest["forms"][0]
        if form not in manifest["forms"]:
            raise UserError(f"{folder} has the forms {', '.join(manifest['forms'])}, not {form}")
        self.name, self.form = str(manifest["name"]), form
        self.digest = hash_file(folder / files.MANIFEST)
        num_items, width = manifest["num_items"], manifest["width"]
        self.vectors = self.events = _read_vectors(folder / files.ITEM_VECTORS, (num_items + 1, width))
        if manifest["events_apart"]:
            self.events = _read_vectors(folder / files.EVENT_VECTORS, (num_items + 1, manifest["event_width"]))
        self.most = int(manifest["most_events"])
        self.repeat_score = float(manifest["repeat_score"])
        """Added to the score of what a history has."""
        table = read_parquet(folder / files.ITEMS, files.REPAIR)
        together = None
        if files.TOGETHER in manifest["files"]:
            together = read_array(folder / files.TOGETHER, files.REPAIR, mapped=True)
        self.catalogue = Catalogue(table, manifest["attributes"], together)
        if len(table) != num_items:
            raise UserError(f"{folder / files.ITEMS} has {len(table)} items, expected {num_items}: {files.REPAIR}")
        self.graph = open_graph(folder / files.graph_file(form), num_threads)
        exact = search == "all" or (search == "auto" and num_items <= EXACT_ITEMS)
        effort = int(manifest["measured"]["by_form"][form]["effort"])
        self.index: Any = None if exact else read_index(folder / files.index_file(form), num_items, width, effort)

    def rank(self, queries: Sequence[Query]) -> list[Answer]:
        """Return the answers to queries with histories."""
        recent = [query.history[-self.most :] for query in queries]
        users = read_users(self.graph, self.events, np.concatenate(recent), np.array([len(read) for read in recent]))
        quick: list[int] = []
        rest: list[int] = []
        for row, query in enumerate(queries):
            (quick if self._can_search(query) else rest).append(row)
        answers: dict[int, Answer] = {}
        if quick:
            answers |= zip(quick, self._find([queries[row] for row in quick], users[quick]), strict=True)
        step = max(SCORES // len(self.vectors.trained), 1)
        for start in range(0, len(rest), step):
            rows = rest[start : start + step]
            scores = self.vectors.products(users[rows])
            if self.repeat_score:
                for own, row in zip(scores, rows, strict=True):
                    own[np.unique(recent[row])] += self.repeat_score
            answers |= {row: best_of(own, queries[row]) for row, own in zip(rows, scores, strict=True)}
        return [answers[row] for row in range(len(queries))]

    def _can_search(self, query: Query) -> bool:
        """Return whether the index finds the best items for a query: it knows vectors alone."""
        if self.index is None or query.among is not None or len(query.left_out) > MOST_LEFT_OUT:
            return False
        return not self.repeat_score or bool(np.isin(query.history[-self.most :], query.left_out).all())

    def _find(self, queries: Sequence[Query], users: NDArray[np.float32]) -> list[Answer]:
        trained, added = self.vectors.trained, self.vectors.added
        most = max(query.k + len(query.left_out) for query in queries)
        found, scores = search(self.index, trained, users, min(most, len(trained) - 1))
        if len(added):  # few: all are scored
            rows = np.broadcast_to(np.arange(len(trained), len(trained) + len(added)), (len(users), len(added)))
            found, scores = np.concatenate([found, rows], axis=1), np.concatenate([scores, users @ added.T], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")
            found, scores = np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1)
        height = len(trained) + len(added)
        rows = np.repeat(np.arange(len(queries)), [len(query.left_out) for query in queries])
        left_out = rows * height + np.concatenate([query.left_out for query in queries])
        kept = (found > 0) & ~np.isin(found + np.arange(len(queries))[:, None] * height, left_out)
        places = [own.nonzero()[0][: query.k] for own, query in zip(kept, queries, strict=True)]
        return [Answer(found[row, place], scores[row, place]) for row, place in enumerate(places)]

    def similar(self, item: int, k: int) -> Answer:
        """Return the items whose vectors have the greatest cosine with an item's, and the cosines."""
        own = self.vectors[np.array([item])]
        return by_cosine(self.vectors.products(own)[0], self.vectors.lengths(), item, k)

    def add(self, raw_id: str, texts: Mapping[str, str], placed: Placed) -> None:
        """Add an item, see `Answering`."""
        for table in {id(table): table for table in (self.vectors, self.events)}.values():
            table.append(mean_vector(table.trained, placed.near, placed.cosines))
        self.catalogue.add(raw_id, texts, placed.words)


def _read_vectors(path: Path, shape: tuple[int, int]) -> Vectors:
    array = read_array(path, files.REPAIR, mapped=True)
    if array.shape != shape or array.dtype != np.float32:
        raise UserError(
            f"{path} holds {array.dtype} of shape {array.shape}, expected float32 of {shape}: {files.REPAIR}"
        )
    return Vectors(array)
