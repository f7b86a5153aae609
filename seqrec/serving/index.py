"""Finding items of highest score without computing all scores: an HNSW graph of the item vectors.

A graph is of one of two kinds. In one, nearness is the product of two vectors; where lengths differ much, long vectors
draw all searches there. In the other, levelled, one number more, sqrt(M^2 - |v|^2) with M the greatest, brings all item
vectors to one length, so that the item nearest to a user's vector and a 0 has the highest score.

Shapes: N items, B users, D width.
Source: Malkov & Yashunin (2018), https://arxiv.org/abs/1603.09320, as faiss implements it; Bachrach et al. (2014),
https://doi.org/10.1145/2645710.2645741, section 3.
"""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.serving.folder import REPAIR

LINKS = 48
"""Neighbours of an item in the graph."""
EFFORT_OF_BUILDING = 200
LITTLE = 256
"""Effort that is little enough."""
EFFORTS = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
"""Candidates that a search keeps."""
MORE = 2
"""Of an index whose numbers are rounded, so many times the items are found and scored again."""
_QUANTIZERS: dict[str, Any] = {"fp16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit}


def build_index(vectors: NDArray[np.float32], levelled: bool = True) -> Any:
    """Return the index of (N+1, D) item vectors, of which row 0 is nothing, in fp32."""
    rows, metric = np.ascontiguousarray(vectors[1:]), faiss.METRIC_INNER_PRODUCT
    if levelled:
        squares = np.einsum("nd,nd->n", rows, rows)
        rows, metric = np.column_stack([rows, np.sqrt(squares.max() - squares)]), faiss.METRIC_L2
    index: Any = faiss.IndexHNSWFlat(rows.shape[1], LINKS, metric)
    index.hnsw.efConstruction = EFFORT_OF_BUILDING
    index.add(rows)
    return index


def round_index(
    index: Any,
    form: str,
    vectors: NDArray[np.float32],
    users: NDArray[np.float32],
    best: NDArray[np.int64],
    least: float,
) -> Any:
    """Return what `fit_index` returned in one of FORMS: the same graph over rounded numbers, with an effort of its own.

    In fp32 it is the index itself. The other arguments are those of `fit_index`.
    """
    if form == "fp32":
        return index
    rounded: Any = faiss.IndexHNSWSQ(index.d, _QUANTIZERS[form], LINKS, index.metric_type)
    rows = index.reconstruct_n(0, index.ntotal)
    rounded.train(rows)
    rounded.storage.add(rows)
    rounded.hnsw, rounded.ntotal = index.hnsw, index.ntotal
    _fit_effort(rounded, vectors, users, best, least)
    return rounded


def fit_index(vectors: NDArray[np.float32], users: NDArray[np.float32], best: NDArray[np.int64], least: float) -> Any:
    """Return the index, in fp32, that finds enough with the least effort, which is set.

    The second kind is built, too, where the first one needs much.

    Args:
        vectors: (N+1, D).
        users: (B, D), not those that the recall is reported for.
        best: (B, k) items of highest score.
        least: Share of them that is enough; where no effort reaches it, the greatest share is taken.
    """
    found = []
    for levelled in (True, False):
        index = build_index(vectors, levelled)
        share = _fit_effort(index, vectors, users, best, least)
        effort = index.hnsw.efSearch
        if share >= least and effort <= LITTLE:
            return index
        found.append((min(share, least), -effort, index))
    return max(found, key=lambda one: one[:2])[2]


def _fit_effort(
    index: Any, vectors: NDArray[np.float32], users: NDArray[np.float32], best: NDArray[np.int64], least: float
) -> float:
    """Set the least effort with which an index finds enough, or else the greatest; return the share that it finds."""
    for effort in EFFORTS:
        index.hnsw.efSearch = effort
        share = recall(search(index, vectors, users, best.shape[1])[0], best)
        if share >= least:
            break
    return share


def write_index(index: Any, path: Path) -> None:
    """Write an index."""
    faiss.write_index(index, str(path))


def read_index(path: Path, num_items: int, width: int, effort: int) -> Any:
    """Return an index.

    Raises:
        UserError: If it is none of so many items of such a width.
    """
    try:
        index: Any = faiss.read_index(str(path))
    except RuntimeError as error:
        raise UserError(f"{path} is no index of faiss: {REPAIR}") from error
    if index.ntotal != num_items or index.d - width not in (0, 1):
        found = f"{path} has {index.ntotal:,} items of width {index.d}"
        raise UserError(f"{found}, expected {num_items:,} of {width} or one more: {REPAIR}")
    index.hnsw.efSearch = effort
    return index


def search(
    index: Any, vectors: NDArray[np.float32], users: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the (B, k) items of highest score that the index finds and their scores; item 0 where it finds fewer.

    Args:
        index: Of the vectors. One whose numbers are rounded is asked for more, which are scored again.
        vectors: (N+1, D).
        users: (B, D) float32.
        k: At most N.
    """
    more = 1 if isinstance(index, faiss.IndexHNSWFlat) else MORE
    asked = np.pad(users, ((0, 0), (0, index.d - users.shape[1])))
    rows = index.search(asked, min(more * k, index.ntotal))[1]
    scores = np.einsum("bd,bkd->bk", users, vectors[rows + 1])
    scores[rows < 0] = -np.inf
    order = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(rows + 1, order, axis=1), np.take_along_axis(scores, order, axis=1)


def best_items(vectors: NDArray[np.float32], users: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the (B, k) items of highest score among all, by computing all scores."""
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(np.ascontiguousarray(vectors[1:]))
    return np.asarray(flat.search(np.ascontiguousarray(users), k)[1] + 1)


def recall(found: NDArray[np.int64], best: NDArray[np.int64]) -> float:
    """Return which share of the (B, k) best items was found, in the mean over users."""
    return float((found[:, :, None] == best[:, None, :]).any(axis=1).mean())
