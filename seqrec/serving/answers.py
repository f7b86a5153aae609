"""Models that answer: exported ones, without PyTorch, and finished runs of any family.

Shapes: N items, B queries, D width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.basics.opening import read_array, read_parquet
from seqrec.serving import folder as files
from seqrec.serving.catalogue import Catalogue

SCORES = 1 << 22
"""Scores of all items that are in memory at one time."""
EXACT_ITEMS = 5_000
"""Up to so many items, all are scored."""


@dataclass(frozen=True, slots=True)
class Query:
    """A history, and what to recommend to it."""

    history: NDArray[np.int64]
    """Items, the oldest first; may be empty."""
    k: int
    left_out: NDArray[np.int64]
    """Items that are not recommended."""
    among: NDArray[np.int64] | None = None
    """Items that may be; None for all."""


class Answer(NamedTuple):
    """The best items for a query, best first; fewer than k where there are no more."""

    items: NDArray[np.int64]
    scores: NDArray[np.float32]
    by: str = "model"
    """What ranked them: model, or popularity where the history is empty."""


class Answering(ABC):
    """A model and its items."""

    name: str
    digest: str
    """Of the export; of a run, its folder."""
    catalogue: Catalogue

    @abstractmethod
    def rank(self, queries: Sequence[Query]) -> list[Answer]:
        """Return the answers to queries with histories."""

    @abstractmethod
    def similar(self, item: int, k: int) -> Answer:
        """Return the items whose vectors have the greatest cosine with an item's, and the cosines."""

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """Return the answers to queries; what is popular where a history is empty."""
        known = [query for query in queries if len(query.history)]
        ranked = iter(self.rank(known) if known else ())
        return [next(ranked) if len(query.history) else self._popular(query) for query in queries]

    def _popular(self, query: Query) -> Answer:
        scores = self.catalogue.counts.astype(np.float32)
        return _best_of(scores, query)._replace(by="popularity")


def _best_of(scores: NDArray[np.float32], query: Query) -> Answer:
    """Return the best items by (N+1,) scores, which are changed."""
    scores[0] = -np.inf
    scores[query.left_out] = -np.inf
    if query.among is not None:
        allowed = np.full_like(scores, -np.inf)
        allowed[query.among] = scores[query.among]
        scores = allowed
    k = min(query.k, len(scores))
    best = np.argpartition(-scores, k - 1)[:k]
    best = best[np.argsort(-scores[best], kind="stable")]
    best = best[scores[best] > -np.inf]
    return Answer(best, scores[best])


def _cosines(vectors: NDArray[np.float32], lengths: NDArray[np.float32], item: int, k: int) -> Answer:
    own = vectors[item] / max(float(lengths[item]), 1e-12)
    scores = (vectors @ own) / np.maximum(lengths, 1e-12)
    return _best_of(scores, Query(np.array([item]), k, np.array([item])))


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
        import faiss

        from seqrec.serving.encoder import open_graph
        from seqrec.serving.index import read_index

        manifest = files.read_manifest(folder)
        form = form or manifest["forms"][0]
        if form not in manifest["forms"]:
            raise UserError(f"{folder} has the forms {', '.join(manifest['forms'])}, not {form}")
        self.name, self.form = str(manifest["name"]), form
        self.digest = files.hash_file(folder / files.MANIFEST)
        num_items, width = manifest["num_items"], manifest["width"]
        self.vectors = _read_vectors(folder / files.ITEM_VECTORS, (num_items + 1, width))
        events = folder / files.EVENT_VECTORS
        shape = (num_items + 1, manifest["event_width"])
        self.events = _read_vectors(events, shape) if manifest["events_apart"] else self.vectors
        self.most = int(manifest["most_events"])
        table = read_parquet(folder / files.ITEMS, files.REPAIR)
        together = None
        if files.TOGETHER in manifest["files"]:
            together = read_array(folder / files.TOGETHER, files.REPAIR, mapped=True)
        self.catalogue = Catalogue(table, manifest["attributes"], together)
        if len(self.catalogue) != num_items:
            raise UserError(
                f"{folder / files.ITEMS} has {len(self.catalogue)} items, expected {num_items}: {files.REPAIR}"
            )
        self.graph = open_graph(folder / files.graph_file(form), num_threads)
        faiss.omp_set_num_threads(num_threads)
        exact = search == "all" or (search == "auto" and num_items <= EXACT_ITEMS)
        effort = int(manifest["measured"]["by_form"][form]["effort"])
        self.index: Any = None if exact else read_index(folder / files.index_file(form), num_items, width, effort)
        self._lengths: NDArray[np.float32] | None = None

    def rank(self, queries: Sequence[Query]) -> list[Answer]:
        """Return the answers to queries with histories."""
        from seqrec.serving.encoder import read_users

        recent = [query.history[-self.most :] for query in queries]
        users = read_users(self.graph, self.events, np.concatenate(recent), np.array([len(read) for read in recent]))
        if self.index is not None and all(query.among is None for query in queries):
            return self._find(queries, users)
        step = max(SCORES // len(self.vectors), 1)
        answers = []
        for start in range(0, len(queries), step):
            scores = users[start : start + step] @ self.vectors.T
            answers += [_best_of(*pair) for pair in zip(scores, queries[start : start + step], strict=True)]
        return answers

    def _find(self, queries: Sequence[Query], users: NDArray[np.float32]) -> list[Answer]:
        from seqrec.serving.index import search

        most = max(query.k + len(query.left_out) for query in queries)
        found, scores = search(self.index, self.vectors, users, min(most, len(self.catalogue)))
        answers = []
        for query, items, own in zip(queries, found, scores, strict=True):
            kept = ((items > 0) & ~np.isin(items, query.left_out)).nonzero()[0][: query.k]
            answers.append(Answer(items[kept], own[kept]))
        return answers

    def similar(self, item: int, k: int) -> Answer:
        """Return the items whose vectors have the greatest cosine with an item's, and the cosines."""
        if self._lengths is None:
            self._lengths = np.linalg.norm(self.vectors, axis=1)
        return _cosines(self.vectors, self._lengths, item, k)


def _read_vectors(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    array = read_array(path, files.REPAIR, mapped=True)
    if array.shape != shape or array.dtype != np.float32:
        raise UserError(
            f"{path} holds {array.dtype} of shape {array.shape}, expected float32 of {shape}: {files.REPAIR}"
        )
    return array


class Run(Answering):
    """A finished run of any family, by PyTorch."""

    def __init__(self, folder: Path) -> None:
        """Restore a run.

        Raises:
            UserError: If it is not finished, or cannot be restored.
        """
        import torch

        from seqrec.serving.together import find_together
        from seqrec.training.restore import load_run, read_protocol

        dataset, self.recommender = load_run(folder)
        train = read_protocol(folder).hold_out(dataset).train
        table = dataset.item_table().with_columns(count=pl.Series(train.item_counts(dataset.num_items)[1:]))
        self.name, self.digest = f"{folder.parent.parent.name}-{folder.name}", str(folder)
        self.catalogue = Catalogue(table, list(dataset.attributes), find_together(train, dataset.num_items))
        with torch.inference_mode():
            self.vectors = self.recommender.module.item_vectors().detach().float()

    def rank(self, queries: Sequence[Query]) -> list[Answer]:
        """Return the answers to queries with histories."""
        import torch

        from seqrec.data.dataset import Histories

        lengths = np.array([len(query.history) for query in queries])
        ends = np.cumsum(lengths)
        items = np.concatenate([query.history for query in queries]).astype(np.int32)
        histories = Histories(items, np.zeros(len(queries), dtype=np.int64), ends - lengths, ends)
        left_out = [np.union1d(query.left_out, self._absent(query)) for query in queries]
        rows = np.repeat(np.arange(len(queries)), [len(part) for part in left_out])
        seen = torch.from_numpy(rows), torch.from_numpy(np.concatenate(left_out).astype(np.int64))
        with torch.inference_mode():
            inputs = self.recommender.make_inputs(histories, np.arange(len(queries)))
            k = min(max(query.k for query in queries), len(self.catalogue))
            found, scores = self.recommender.module.best(inputs, self.vectors, k, seen)
        answers = []
        for query, row, own in zip(queries, found.numpy(), scores.numpy(), strict=True):
            kept = (row > 0).nonzero()[0][: query.k]
            answers.append(Answer(row[kept], own[kept]))
        return answers

    def _absent(self, query: Query) -> NDArray[np.int64]:
        """Return the items that a query does not allow."""
        if query.among is None:
            return np.zeros(0, dtype=np.int64)
        return np.setdiff1d(np.arange(1, len(self.catalogue) + 1), query.among)

    def similar(self, item: int, k: int) -> Answer:
        """Return the items whose vectors have the greatest cosine with an item's, and the cosines.

        Raises:
            UserError: If the model has no item vectors.
        """
        if not self.vectors.shape[1]:
            raise UserError(f"{self.name} has no item vectors")
        vectors = self.vectors.numpy()
        return _cosines(vectors, np.linalg.norm(vectors, axis=1), item, k)


def open_model(folder: Path, form: str | None = None, search: str = "auto", num_threads: int = 1) -> Answering:
    """Return the model of an export, or of a run."""
    if (folder / "metrics.json").is_file():
        return Run(folder)
    return Exported(folder, form, search, num_threads)
