"""Metrics of a split from the values of its images: intervals and pooled metrics."""

from __future__ import annotations

import numpy as np
import pytest

from colortrain.metrics.summaries import intervals

COLOURS = ("colourfulness", "colourfulness_absolute")


def test_intervals_equal_the_normal_approximation() -> None:
    """With standard deviation s, the mean's 95 % interval is +-1.96 s / sqrt(N).

    In the difference, what both versions have in common cancels.
    """
    draw = np.random.default_rng(3)
    shared, own = draw.normal(5, 2, 400), draw.normal(0, 0.1, 400)
    rows = {
        "l1.generated": shared + own - 0.05,
        "l1.grey": shared,
        "mse.generated": np.full(400, 0.01),
    }
    rows |= {f"{name}.{v}": np.full(400, 8.0) for name in COLOURS for v in ("generated", "truth")}
    result = intervals(rows)
    half = 1.96 * shared.std() / 20
    np.testing.assert_allclose(
        result["l1"]["grey"], [shared.mean() - half, shared.mean() + half], atol=0.1 * half
    )
    half = 1.96 * own.std() / 20
    middle = own.mean() - 0.05
    np.testing.assert_allclose(
        result["l1"]["generated - grey"], [middle - half, middle + half], atol=0.1 * half
    )
    assert result["psnr_pooled"]["generated"] == pytest.approx([20, 20])
    assert result["colourfulness_ratio"]["generated"] == pytest.approx([1, 1])
