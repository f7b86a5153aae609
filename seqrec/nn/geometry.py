"""Transforms of item vectors before a model starts from them.

Shapes: N items, V width of the vectors, D width of the model. Row 0 is padding and stays zero. Statistics are those of
the fitted rows. If these held items unseen in training, the test's items would leak in.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seqrec.basics.errors import UserError

Transform = Literal["none", "centre", "scale", "standardise", "match", "unit", "pca", "whiten", "shrink"]
_FOLDS = 5
"""Folds of the fitted rows; each measures the variances along axes fitted on the others."""
_ABSENT = 1e-9
"""Share of the largest variance below which no fitted item points in a direction."""
_ALIKE = 1e-3
"""Share of all items' entries below which those of the fitted items are too small to divide by."""
Vectors = NDArray[np.float32]
Rows = NDArray[np.bool_]


def transform_vectors(
    vectors: Vectors, transforms: tuple[Transform, ...], fitted: Rows, width: int, own_std: float
) -> Vectors:
    """Return (N+1, V) vectors as a model starts from them, transformed by one name after another.

    - `none`: as they are.
    - `centre`: subtract the mean item. What language models give shares one large direction.
    - `scale`: divide by one number, so that items have unit length (root mean square).
    - `standardise`: `centre`, then `scale`.
    - `match`: divide by one number, so that entries have the deviation of the model's own random table.
    - `unit`: divide each item by its length.
    - `pca`: `centre`, turn to the principal axes, keep the first `width`, (N+1, min(V, D)), then `scale`.
    - `whiten`: `centre`, give all directions the same variance and turn back (ZCA), then `scale`.
    - `shrink`: `centre`, multiply the principal component of variance s by sqrt(s / (s + mean variance)), which keeps
    strong directions and damps weak ones, then `scale`.

    Apart from `none`, `centre` and `match`, all end at one scale, so that a comparison of two compares directions.

    Whitening divides by the variance that a direction has in items that it was not fitted on, measured by
    cross-validation: that of the fitted items themselves is too small where they are few beside V, and items outside
    the fit would blow up. A direction that no fitted item has is dropped.

    Args:
        vectors: (N+1, V).
        transforms: Names, in order.
        fitted: (N+1,) which rows statistics are taken of.
        width: D.
        own_std: Deviation of an entry of the model's random table.

    Raises:
        UserError: If no row is to be fitted, or those that are differ a thousand times less than the others.

    Source: cross-validated variances, Bartz (2016), https://arxiv.org/abs/1611.00798.
    """
    fitted = fitted.copy()
    fitted[0] = False
    if not fitted.any():
        raise UserError("no item has a training interaction: give --fit_transform all")
    items = vectors.astype(np.float64)
    for name in transforms:
        items = _apply(name, items, fitted, width, own_std)
    items[0] = 0
    return items.astype(np.float32)


def side_by_side(vectors: Vectors, others: Vectors) -> Vectors:
    """Return (N+1, V+W) vectors whose first part is the (N+1, V) vectors, the second the (N+1, W) others whitened.

    Both parts of an item have unit length, or are zero. Whitening is over all items, as it reads no events.
    """
    every = np.ones(len(vectors), dtype=bool)
    first = transform_vectors(vectors, ("unit",), every, vectors.shape[1], 1.0)
    return np.concatenate([first, transform_vectors(others, ("whiten", "unit"), every, others.shape[1], 1.0)], axis=1)


def _apply(
    name: Transform, items: NDArray[np.float64], fitted: Rows, width: int, own_std: float
) -> NDArray[np.float64]:
    if name == "none":
        return items
    if name == "unit":
        return np.asarray(items / np.maximum(np.linalg.norm(items, axis=1, keepdims=True), 1e-12))
    if name in ("scale", "match"):
        entry = float(np.sqrt(np.square(items[fitted]).mean()))
        _check_spread(items, fitted)
        return np.asarray(items * ((items.shape[1] ** -0.5 if name == "scale" else own_std) / max(entry, 1e-12)))
    centred: NDArray[np.float64] = items - items[fitted].mean(axis=0)
    if name == "centre":
        return centred
    _check_spread(centred, fitted)
    if name != "standardise":
        centred = _change_directions(name, centred, fitted, width)
    return _apply("scale", centred, fitted, width, own_std)


def _check_spread(items: NDArray[np.float64], fitted: Rows) -> None:
    """Refuse fitted rows so small that dividing by their scale would blow the other rows up."""
    if np.square(items[fitted]).mean() < _ALIKE**2 * np.square(items[1:]).mean():
        raise UserError(
            f"--init_transform: the vectors of the {fitted.sum()} items that occur in training are too much alike to "
            "tell the scale of the others: give --fit_transform all, or --init_transform none"
        )


def _change_directions(name: Transform, centred: NDArray[np.float64], fitted: Rows, width: int) -> NDArray[np.float64]:
    """Return (N+1, V), or (N+1, min(V, D)) for `pca`, from centred vectors."""
    rows = centred[fitted]
    variances, axes = np.linalg.eigh(rows.T @ rows / len(rows))  # smallest first
    if name == "pca":
        return np.asarray(centred @ axes[:, ::-1][:, :width])
    if name == "shrink":
        variances = np.maximum(variances, 0)
        gains = np.sqrt(variances / np.maximum(variances + variances.mean(), 1e-300))
    else:
        variances = _level(variances, _held_out_variances(rows))
        present = variances > _ABSENT * variances.max()
        gains = np.where(present, np.where(present, variances, 1) ** -0.5, 0)
    return np.asarray((centred @ axes * gains) @ axes.T)


def _held_out_variances(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (V,) ascending variances along principal axes, of (n, V) rows that the axes were not fitted on."""
    squares = np.zeros(rows.shape[1])
    folds = min(_FOLDS, len(rows))
    for fold in range(folds):
        kept = np.delete(rows, np.s_[fold::folds], axis=0)
        values, axes = np.linalg.eigh(kept.T @ kept)
        squares += _level(values, np.square(rows[fold::folds] @ axes).sum(axis=0))
    return np.sort(squares / len(rows))


def _level(variances: NDArray[np.float64], held_out: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (V,) held-out variances, their mean where the (V,) ascending ones of the fitted rows are zero.

    Axes without variance are an arbitrary basis, which differs between machines.
    """
    count = int((variances <= _ABSENT * variances[-1]).sum())
    return np.concatenate([np.full(count, held_out[:count].mean() if count else 0.0), held_out[count:]])
