"""Distances of feature sets, against scipy, written-out formulas and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.special import softmax

from colortrain.metrics.features import (
    FeatureRows,
    Moments,
    fid,
    fid_diagonal,
    inception_score,
    kid,
    mmd,
)


def features(seed: int, num: int = 300, dim: int = 12) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.normal(size=(num, dim)) @ draw.normal(size=(dim, dim)) + draw.normal(size=dim)


def on_grid(values: np.ndarray) -> np.ndarray:
    """Round as `Moments` does, so that references get the same numbers."""
    return np.rint(values * 4096) / 4096


def reference_fid(real: np.ndarray, fake: np.ndarray) -> float:
    """Return Heusel et al.'s equation 6 with scipy's matrix square root, in float64."""
    one, other = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = np.trace(sqrtm(one @ other)).real
    return float(
        np.square(real.mean(0) - fake.mean(0)).sum() + np.trace(one) + np.trace(other) - 2 * root
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fid_equals_the_reference(seed: int) -> None:
    real, fake = on_grid(features(seed)), on_grid(features(seed + 10, num=200))
    assert fid(Moments.of(real), Moments.of(fake)) == pytest.approx(
        reference_fid(real, fake), rel=1e-9
    )


def test_rounding_error_is_negligible() -> None:
    real, fake = features(0), features(10)
    assert fid(Moments.of(real), Moments.of(fake)) == pytest.approx(
        reference_fid(real, fake), rel=1e-5
    )


def test_fid_of_equal_sets_is_zero_even_when_singular() -> None:
    """20 images in 64 dimensions: the covariance does not have full rank."""
    few = Moments.of(features(0, num=20, dim=64))
    scale = np.trace(few.covariance)
    assert abs(fid(few, few)) < 1e-6 * scale


def test_fid_of_a_shift_and_of_a_scale() -> None:
    """Shifted by d: |d|^2. Twice as wide: tr(S + 4 S - 2 * 2 S) = tr S."""
    centred = on_grid(features(0))
    centred -= centred[::-1].mean(0).round(2)
    base = Moments.of(on_grid(centred))
    shifted = Moments.of(on_grid(centred) + 0.5)
    assert fid(base, shifted) == pytest.approx(12 * 0.25, rel=1e-6)
    wide = Moments.of(2 * on_grid(centred))
    expected = np.trace(base.covariance) + np.square(base.mean).sum()
    assert fid(base, wide) == pytest.approx(expected, rel=1e-6)


def test_fid_diagonal_is_not_fid() -> None:
    """2 |mu - mu'|^2 + |sigma - sigma'|^2 (section II-F): it doubles a shift.

    It does not depend on correlations.
    """
    real, fake = on_grid(features(0)), on_grid(features(10))
    shift, spread = real.mean(0) - fake.mean(0), real.std(0, ddof=1) - fake.std(0, ddof=1)
    expected = 2 * (shift**2).sum() + (spread**2).sum()
    assert fid_diagonal(Moments.of(real), Moments.of(fake)) == pytest.approx(expected, rel=1e-9)
    mirrored = real * np.where(np.arange(12) % 2, 1, -1) + 0.0
    centred, other = (
        Moments.of(real - on_grid(real.mean(0))),
        Moments.of(mirrored - on_grid(mirrored.mean(0))),
    )
    assert fid_diagonal(centred, other) < 1e-6 < 0.1 < fid(centred, other)


def test_moments_equal_numpy() -> None:
    values = on_grid(features(4, num=5000))
    result = Moments.of(values)
    np.testing.assert_allclose(result.mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(result.covariance, np.cov(values, rowvar=False), rtol=1e-9)
    np.testing.assert_allclose(result.std, values.std(0, ddof=1), rtol=1e-10)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_moments_merge_to_the_same_bits_in_any_order(world: int) -> None:
    """5000 vectors in chunks, distributed over processes, give the same bits."""
    values = 10 * features(5, num=5000)
    chunks = [values[start : start + 64] for start in range(0, len(values), 64)]
    parts = []
    for rank in reversed(range(world)):
        first, *rest = (Moments.of(chunk) for chunk in chunks[rank::world])
        parts.append(sum(rest, first))
    merged, whole = sum(parts[1:], parts[0]), Moments.of(values)
    assert merged.num == whole.num == 5000
    assert np.array_equal(merged.sums, whole.sums)
    assert np.array_equal(merged.products, whole.products)
    other = Moments.of(features(6))
    assert fid(merged, other) == fid(whole, other)


@pytest.mark.parametrize("value", [512.0, -600.0, math.inf, math.nan])
def test_features_out_of_range_raise(value: float) -> None:
    with pytest.raises(ValueError, match="below 512"):
        Moments.of(np.array([[0.0, value]]))


def test_largest_features_do_not_overflow() -> None:
    """The worst case for exactness: 4096 rows just below 512."""
    result = Moments.of(np.full((4096, 2), 511.999))
    steps = round(511.999 * 4096)
    assert result.products[0, 1] == 4096 * steps**2
    assert result.covariance.max() == pytest.approx(0, abs=1e-6)


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="requires at least two images"):
        _ = Moments.of(np.zeros((1, 3))).covariance


def test_rows_are_in_the_order_of_images() -> None:
    values = features(0, num=10)
    mine = FeatureRows(((4, values[4:6]), (0, values[:4])))
    assert np.array_equal((FeatureRows(((6, values[6:]),)) + mine).array(), values)


def test_inception_score_equals_its_definition() -> None:
    logits = np.random.default_rng(0).normal(size=(60, 7)) * 3
    expected = []
    for part in np.array_split(softmax(logits, axis=1), 4):
        divergence = (part * (np.log(part) - np.log(part.mean(0)))).sum(1)
        expected.append(np.exp(divergence.mean()))
    result = inception_score(logits, splits=4)
    assert result == pytest.approx((np.mean(expected), np.std(expected)), rel=1e-12)


def test_inception_score_is_between_one_and_the_number_of_classes() -> None:
    assert inception_score(np.zeros((40, 7)), splits=2) == pytest.approx((1, 0))
    sure = np.tile(
        1000.0 * np.eye(5), (8, 1)
    )  # each class equally often, with certainty; e^1000 would overflow
    assert inception_score(sure, splits=4) == pytest.approx((5, 0))
    with pytest.raises(ValueError, match="10 splits require at least 10 images"):
        inception_score(np.zeros((3, 2)))


def test_mmd_equals_the_sum_over_pairs() -> None:
    one, other = features(0, num=7, dim=3), features(1, num=5, dim=3)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 3 + 1) ** 3)

    within = [
        np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j])
        for s in (one, other)
    ]
    across = np.mean([kernel(x, y) for x in one for y in other])
    assert mmd(one, other) == pytest.approx(sum(within) - 2 * across, rel=1e-12)


def test_kid_is_unbiased_around_zero_and_grows_with_the_shift() -> None:
    real, same = features(3, num=400, dim=4), features(3, num=800, dim=4)[400:]
    near, spread = kid(real, same, subsets=40, subset_size=100)
    assert abs(near) < 3 * spread
    far, _ = kid(real, same + 1, subsets=40, subset_size=100)
    assert far > near + spread
    seeded = [kid(real, same, subsets=3, subset_size=100, seed=seed) for seed in (1, 1, 0)]
    assert seeded[0] == seeded[1] != seeded[2]


def test_kid_of_whole_sets_equals_mmd() -> None:
    one, other = features(0, num=30), features(1, num=30)
    assert kid(one, other, subsets=2)[0] == pytest.approx(mmd(one, other), rel=1e-9)
