"""Finished runs that answer, of any family, by PyTorch.

Shapes: N items, M items added since, B queries, D width.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.data.dataset import Histories
from seqrec.serving.answers import Answer, Answering, Placed, Query, by_cosine
from seqrec.serving.catalogue import Catalogue, mean_vector
from seqrec.serving.together import find_together
from seqrec.training.restore import load_run, read_protocol


class Run(Answering):
    """A finished run of any family, by PyTorch."""

    def __init__(self, folder: Path) -> None:
        """Restore a run.

        Raises:
            UserError: If it is not finished, or cannot be restored.
        """
        dataset, self.recommender = load_run(folder)
        train = read_protocol(folder).hold_out(dataset).train
        table = dataset.item_table().with_columns(count=pl.Series(train.item_counts(dataset.num_items)[1:]))
        self.name, self.digest = f"{folder.parent.parent.name}-{folder.name}", str(folder)
        self.catalogue = Catalogue(table, list(dataset.attributes), find_together(train, dataset.num_items))
        with torch.inference_mode():
            self.vectors = self.recommender.module.item_vectors().detach().float()
        self.stand_ins = np.arange(len(table) + 1)
        """(N+1+M,) the items that are read where a history has these: for an added one the nearest by words."""

    def rank(self, queries: Sequence[Query]) -> list[Answer]:
        """Return the answers to queries with histories."""
        lengths = np.array([len(query.history) for query in queries])
        ends = np.cumsum(lengths)
        items = self.stand_ins[np.concatenate([query.history for query in queries])].astype(np.int32)
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

    def place(self, texts: Mapping[str, str]) -> Placed:
        """Return where a new item would stand by its texts.

        Raises:
            UserError: If the model's scores are more than products of vectors, or it knows no word of the texts.
        """
        if not self.recommender.module.scores_are_products:
            raise UserError(f"{self.name} scores items by more than their vectors, so it takes no new ones")
        return super().place(texts)

    def add(self, raw_id: str, texts: Mapping[str, str], placed: Placed) -> None:
        """Add an item, see `Answering`; in a history, the item of the nearest words is read in its place."""
        own = mean_vector(self.vectors[: self.catalogue.num_trained + 1].numpy(), placed.near, placed.cosines)
        self.vectors = torch.cat([self.vectors, torch.from_numpy(own)[None]])
        self.stand_ins = np.append(self.stand_ins, placed.near[0])
        self.catalogue.add(raw_id, texts, placed.words)

    def similar(self, item: int, k: int) -> Answer:
        """Return the items whose vectors have the greatest cosine with an item's, and the cosines.

        Raises:
            UserError: If the model has no item vectors.
        """
        if not self.vectors.shape[1]:
            raise UserError(f"{self.name} has no item vectors")
        vectors = self.vectors.numpy()
        return by_cosine(vectors @ vectors[item], np.linalg.norm(vectors, axis=1), item, k)
