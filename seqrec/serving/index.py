"""Finding items of highest score without computing all scores: an HNSW graph of the item vectors.

Shapes: N items, B users, D width.
Source: Malkov & Yashunin (2018), https://arxiv.org/abs/1603.09320, as faiss implements it.
"""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.serving.folder import REPAIR

LINKS = 32
"""Neighbours of an item in the graph."""
EFFORT_OF_BUILDING = 200
EFFORTS = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
"""Candidates that a search keeps; the smallest that finds enough is taken."""
MORE = 2
"""Of an index whose numbers are rounded, so many times the items are found and scored again."""
_QUANTIZERS: dict[str, Any] = {"fp16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit}


def build_index(vectors: NDArray[np.float32], form: str) -> Any:
    """Return the index of (N+1, D) item vectors, of which row 0 is nothing, in one of FORMS."""
    metric, width = faiss.METRIC_INNER_PRODUCT, vectors.shape[1]
    index: Any
    if form == "fp32":
        index = faiss.IndexHNSWFlat(width, LINKS, metric)
    else:
        index = faiss.IndexHNSWSQ(width, _QUANTIZERS[form], LINKS, metric)
    index.hnsw.efConstruction = EFFORT_OF_BUILDING
    rows = np.ascontiguousarray(vectors[1:])
    index.train(rows)
    index.add(rows)
    return index


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
    if (index.ntotal, index.d) != (num_items, width):
        raise UserError(
            f"{path} has {index.ntotal:,} items of width {index.d}, expected {num_items:,} of {width}: {REPAIR}"
        )
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
    users = np.ascontiguousarray(users)
    if isinstance(index, faiss.IndexHNSWFlat):
        scores, rows = index.search(users, k)
        return rows + 1, scores
    rows = index.search(users, min(MORE * k, index.ntotal))[1]
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


def choose_effort(
    index: Any, vectors: NDArray[np.float32], users: NDArray[np.float32], least: float, k: int = 10
) -> int:
    """Set the least effort with which a search finds enough of the best k items of some users, and return it.

    Args:
        index: Of the vectors.
        vectors: (N+1, D).
        users: (B, D), not those that the recall is reported for.
        least: Recall that is enough; where no effort reaches it, the greatest is taken.
        k: At most N.
    """
    best = best_items(vectors, users, k)
    for effort in EFFORTS:
        index.hnsw.efSearch = effort
        if recall(search(index, vectors, users, k)[0], best) >= least:
            break
    return effort
