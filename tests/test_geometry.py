"""Transforms of item vectors: by hand, by their properties, and on whose statistics they rest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.nn.geometry import Transform, transform_vectors

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


def rms_length(vectors: NDArray[np.floating]) -> float:
    return float(np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1).mean()))


def centre(vectors: Vectors) -> NDArray[np.float64]:
    return np.asarray(vectors[1:].astype(np.float64) - vectors[1:].mean(axis=0, dtype=np.float64))


@given(
    st.sampled_from(("scale", "standardise", "unit", "pca", "whiten", "shrink")), st.integers(3, 60), st.integers(1, 20)
)
def test_transforms_end_at_one_scale(name: Transform, num_items: int, width: int) -> None:
    vectors = 7 * random_vectors(num_items, width)
    assert rms_length(transform(vectors, name)[1:]) == pytest.approx(1, rel=1e-4)


def test_principal_axes() -> None:
    vectors = random_vectors()
    turned = transform(vectors, "pca")
    assert turned.shape == vectors.shape
    covariance = np.cov(turned[1:].T, bias=True)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-5)
    assert (np.diff(np.diag(covariance)) <= 1e-9).all()
    centred = centre(vectors) / rms_length(centre(vectors))
    np.testing.assert_allclose(turned[1:] @ turned[1:].T, centred @ centred.T, atol=1e-4)  # distances stay
    two = turned[:, :2] / rms_length(turned[1:, :2])
    np.testing.assert_allclose(transform(vectors, "pca", width=2), two, atol=1e-5)


def test_whitened_directions_have_one_variance_and_stay_where_they_were() -> None:
    vectors = random_vectors(20_000)
    white = transform(vectors, "whiten")
    np.testing.assert_allclose(6 * np.cov(white[1:].T, bias=True), np.eye(6), atol=0.01)
    # Of all whitenings the one that turns nothing: the inverse square root of the covariance, here by its own way.
    values, axes = np.linalg.eigh(np.cov(vectors[1:].astype(np.float64).T, bias=True))
    expected = centre(vectors) @ (axes @ np.diag(values**-0.5) @ axes.T) / 6**0.5
    np.testing.assert_allclose(white[1:], expected, atol=0.02)


@pytest.mark.parametrize("num_fitted", [10, 30, 59, 60, 90, 1000])
def test_whitening_few_items_does_not_blow_up_the_others(num_fitted: int) -> None:
    vectors = np.random.default_rng(1).normal(size=(3001, 60)) @ np.diag(np.linspace(1, 0.1, 60))
    white = transform(vectors.astype(np.float32), "whiten", fitted=list(range(1, num_fitted + 1)))
    assert rms_length(white[1 : num_fitted + 1]) == pytest.approx(1, rel=1e-4)
    assert 0.3 < rms_length(white[1001:]) < 5


@pytest.mark.parametrize("num_fitted", [10, 30, 49, 200])
def test_whitening_turned_vectors_turns_what_it_gives(num_fitted: int) -> None:
    generator = np.random.default_rng(2)
    vectors = (generator.normal(size=(301, 60)) * np.logspace(0, -2, 60)).astype(np.float32)
    turn = np.linalg.qr(generator.normal(size=(60, 60)))[0]
    fitted = list(range(1, num_fitted + 1))
    white = transform(vectors, "whiten", fitted=fitted)
    turned = transform((vectors.astype(np.float64) @ turn).astype(np.float32), "whiten", fitted=fitted)
    np.testing.assert_allclose(turned[1:], white[1:] @ turn, atol=1e-3)


@pytest.mark.parametrize("name", ["standardise", "pca", "whiten", "shrink"])
def test_fitted_items_that_do_not_differ_are_refused(name: Transform) -> None:
    vectors = random_vectors()
    vectors[1:11] = vectors[1]
    with pytest.raises(UserError, match=r"10 items that occur in training are too much alike.*--fit_transform all"):
        transform(vectors, name, fitted=list(range(1, 11)))
    with pytest.raises(UserError, match="1 items that occur in training are too much"):
        transform(vectors, name, fitted=[20])


def test_whitening_drops_a_direction_that_no_fitted_item_has() -> None:
    vectors = np.random.default_rng(1).normal(size=(101, 3)).astype(np.float32)
    vectors[:51, 2] = 0
    white = transform(vectors, "whiten", fitted=list(range(1, 51)))
    np.testing.assert_allclose(white[:, 2], 0, atol=1e-6)


def test_shrinking_is_the_formula_on_singular_values() -> None:
    vectors = random_vectors()
    left, singular, right = np.linalg.svd(centre(vectors), full_matrices=False)
    variances = singular**2 / len(left)
    expected = left @ np.diag(singular * np.sqrt(variances / (variances + variances.mean()))) @ right
    np.testing.assert_allclose(transform(vectors, "shrink")[1:], expected / rms_length(expected), atol=1e-5)


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
