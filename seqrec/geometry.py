"""What is done to item vectors before a model starts from them.

Shapes: N items, V width of the vectors, D width of the model. Row 0 is padding and stays zero. Statistics are those of
the fitted rows; with items that training never sees among them, they would know of the test's items.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seqrec.errors import UserError

Transform = Literal["none", "centre", "scale", "standardise", "match", "unit", "pca", "whiten", "shrink"]
_FLOOR = 1e-6
"""Share of the largest variance below which a direction counts as having that much."""

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
    - `pca`: `centre`, then turn to the principal axes, the first `width` of which are kept: (N+1, min(V, D)).
    - `whiten`: `centre`, then give all directions unit variance and turn back (ZCA).
    - `shrink`: `centre`, then multiply the principal component of variance s by sqrt(s / (s + mean variance)), which
      leaves strong directions alone and quiets weak ones.

    Args:
        vectors: (N+1, V).
        transforms: Names, in order.
        fitted: (N+1,) which rows statistics are taken of.
        width: D.
        own_std: Deviation of an entry of the model's random table.

    Raises:
        UserError: If no row is to be fitted.
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


def _apply(
    name: Transform, items: NDArray[np.float64], fitted: Rows, width: int, own_std: float
) -> NDArray[np.float64]:
    if name == "none":
        return items
    if name == "unit":
        return np.asarray(items / np.maximum(np.linalg.norm(items, axis=1, keepdims=True), 1e-12))
    if name in ("scale", "match"):
        entry = float(np.sqrt(np.square(items[fitted]).mean()))
        return np.asarray(items * ((items.shape[1] ** -0.5 if name == "scale" else own_std) / max(entry, 1e-12)))
    centred: NDArray[np.float64] = items - items[fitted].mean(axis=0)
    if name == "centre":
        return centred
    if name == "standardise":
        return _apply("scale", centred, fitted, width, own_std)
    variances, axes = np.linalg.eigh(centred[fitted].T @ centred[fitted] / fitted.sum())
    variances, axes = variances[::-1], axes[:, ::-1]  # largest first
    if name == "pca":
        return np.asarray(centred @ axes[:, :width])
    floored = np.maximum(variances, max(variances[0] * _FLOOR, 1e-12))
    gains = floored**-0.5 if name == "whiten" else np.sqrt(floored / (floored + floored.mean()))
    return np.asarray((centred @ axes * gains) @ axes.T)
