"""Bootstrap: the same resamples for all metrics, and intervals against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from colortrain.metrics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means


def test_resampled_means_have_the_standard_error() -> None:
    values = np.random.default_rng(1).normal(3, 2, 500)
    means = resampled_means({"a": values})["a"]
    assert means.shape == (RESAMPLES,)
    assert means.mean() == pytest.approx(values.mean(), abs=0.02)
    assert means.std() == pytest.approx(values.std() / np.sqrt(500), rel=0.1)


def test_all_metrics_use_the_same_resamples() -> None:
    values = np.random.default_rng(2).normal(size=40)
    means = resampled_means({"a": values, "b": 2 * values + 1})
    np.testing.assert_allclose(means["b"], 2 * means["a"] + 1, rtol=1e-12)
    np.testing.assert_allclose(resampled_means({"a": values})["a"], means["a"], rtol=1e-9)


def test_a_constant_has_no_spread() -> None:
    assert resampled_means({"a": np.full(7, 0.5)})["a"].tolist() == [0.5] * RESAMPLES


def test_interval_is_the_central_fraction() -> None:
    low, high = interval(np.arange(1001.0))
    assert (low, high) == pytest.approx((25, 975))
    assert (high - low) / 1000 == pytest.approx(LEVEL)
