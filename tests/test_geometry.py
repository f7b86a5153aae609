"""Transforms of item vectors: by hand, by their properties, and on whose statistics they rest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from seqrec.geometry import Transform, transform_vectors

Vectors = NDArray[np.float32]


def transform(vectors: Vectors, *names: Transform, fitted: list[int] | None = None, width: int = 100) -> Vectors:
    rows = np.ones(len(vectors), dtype=bool)
    if fitted is not None:
        rows[:] = False
        rows[fitted] = True
    return transform_vectors(vectors, names, rows, width, own_std=0.02)


def random_vectors(num_items: int = 200, width: int = 6, seed: int = 0) -> Vectors:
    generator = np.random.default_rng(seed)
    spread = generator.normal(size=(width, width)) * np.logspace(0, -2, width)
    vectors = (generator.normal(size=(num_items + 1, width)) @ spread + generator.normal(size=width)).astype(np.float32)
    vectors[0] = 0
    return vectors


def test_by_hand() -> None:
    vectors = np.array([[0, 0], [3, 5], [1, 5]], dtype=np.float32)
    # Less the mean (2, 5): (1, 0), (-1, 0), which have unit length.
    assert transform(vectors, "standardise").tolist() == [[0, 0], [1, 0], [-1, 0]]
    assert transform(2 * vectors, "centre").tolist() == [[0, 0], [2, 0], [-2, 0]]
    assert transform(2 * vectors, "centre", "scale").tolist() == [[0, 0], [1, 0], [-1, 0]]
    np.testing.assert_array_equal(transform(vectors, "none"), vectors)
    np.testing.assert_allclose(transform(vectors, "unit")[1], np.array([3, 5]) / 34**0.5, rtol=1e-6)
    assert (transform(vectors, "match")[1:] ** 2).mean() == pytest.approx(0.02**2)


@given(st.integers(2, 30), st.integers(1, 20), st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_standardise_forgets_scale_and_shift(num_items: int, width: int, scale: float, shift: float) -> None:
    vectors = np.random.default_rng(num_items * 100 + width).normal(size=(num_items + 1, width)).astype(np.float32)
    vectors[0] = 0
    other = (vectors.astype(np.float64) * scale + shift).astype(np.float32)
    other[0] = 0
    out = transform(vectors, "standardise")
    assert out.dtype == np.float32
    assert not out[0].any()
    np.testing.assert_allclose(out[1:].mean(axis=0), 0, atol=1e-5)
    assert (out[1:] ** 2).sum(axis=1).mean() == pytest.approx(1, rel=1e-4)  # unit length on average
    np.testing.assert_allclose(out, transform(other, "standardise"), atol=1e-2)


def test_principal_axes() -> None:
    vectors = random_vectors()
    turned = transform(vectors, "pca")
    assert turned.shape == vectors.shape
    covariance = np.cov(turned[1:].T, bias=True)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-5)
    assert (np.diff(np.diag(covariance)) <= 1e-9).all()
    centred = vectors[1:] - vectors[1:].mean(axis=0)
    np.testing.assert_allclose(turned[1:] @ turned[1:].T, centred @ centred.T, atol=1e-4)  # distances stay
    np.testing.assert_allclose(transform(vectors, "pca", width=2), turned[:, :2], atol=1e-6)


def test_whitened_directions_have_unit_variance_and_stay_where_they_were() -> None:
    vectors = random_vectors()
    white = transform(vectors, "whiten")
    np.testing.assert_allclose(np.cov(white[1:].T, bias=True), np.eye(6), atol=1e-3)
    centred = vectors[1:].astype(np.float64) - vectors[1:].mean(axis=0, dtype=np.float64)
    cross = centred.T @ white[1:]
    np.testing.assert_allclose(cross, cross.T, atol=1e-2)  # of all whitenings the one that turns nothing


def test_shrinking_is_the_formula_on_singular_values() -> None:
    vectors = random_vectors()
    centred = vectors[1:].astype(np.float64) - vectors[1:].mean(axis=0, dtype=np.float64)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    variances = singular**2 / len(centred)
    expected = left @ np.diag(singular * np.sqrt(variances / (variances + variances.mean()))) @ right
    np.testing.assert_allclose(transform(vectors, "shrink")[1:], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["centre", "scale", "standardise", "match", "pca", "whiten", "shrink"])
def test_items_that_are_not_fitted_change_nothing_for_the_others(name: Transform) -> None:
    vectors = random_vectors()
    other = vectors.copy()
    other[150:] *= 7
    fitted = list(range(150))
    before, after = (transform(v, name, fitted=fitted) for v in (vectors, other))
    np.testing.assert_array_equal(before[:150], after[:150])
    assert not np.allclose(before[150:], after[150:])
    assert not np.allclose(transform(other, name)[:150], after[:150])


def test_nothing_to_fit() -> None:
    with pytest.raises(ValueError, match="no item has a training interaction: give --fit_transform all"):
        transform(random_vectors(), "pca", fitted=[0])
