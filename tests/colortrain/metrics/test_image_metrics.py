"""Metrics of single images against scikit-image and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import (
    mean_squared_error,
    peak_signal_noise_ratio,
    structural_similarity,
)
from torch import Tensor

from colortrain.metrics.image_metrics import (
    ImageBatch,
    colourfulness,
    colourfulness_absolute,
    image_versions,
    l1,
    mse,
    per_image,
    psnr,
    ssim,
)
from shards.color import rgb_to_lab
from tests.support.small_shard_set import cut_outs


@pytest.fixture(scope="module")
def truth() -> Tensor:
    """Eight photographs of 48 px, CIELAB."""
    return torch.tensor(np.stack([rgb_to_lab(rgb) for rgb in cut_outs(48, 8)]))


@pytest.fixture(scope="module")
def other(truth: Tensor) -> Tensor:
    """The same photographs with wrong colours, some of them far outside sRGB."""
    noise = torch.randn(truth[:, 1:].shape, generator=torch.Generator().manual_seed(0))
    return torch.cat([truth[:, :1], 0.6 * truth[:, 1:] + 15 * noise + 20], dim=1)


def as_numpy(images: Tensor) -> np.ndarray:
    return ImageBatch(images).rgb.permute(0, 2, 3, 1).double().numpy()


def test_psnr_equals_scikit_image_for_each_image(truth: Tensor, other: Tensor) -> None:
    result = psnr(mse(ImageBatch(other).rgb, ImageBatch(truth).rgb))
    expected = [
        peak_signal_noise_ratio(t, o, data_range=1)
        for t, o in zip(*map(as_numpy, (truth, other)), strict=True)
    ]
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_rmse_equals_scikit_image_for_each_image(truth: Tensor, other: Tensor) -> None:
    rows = per_image(image_versions(other, truth))
    expected = [
        np.sqrt(mean_squared_error(t, o))
        for t, o in zip(*map(as_numpy, (truth, other)), strict=True)
    ]
    np.testing.assert_allclose(rows["rmse.generated"], expected, rtol=1e-5)
    np.testing.assert_allclose(rows["psnr.grey"], -20 * rows["rmse.grey"].log10(), rtol=1e-5)


@pytest.mark.parametrize("size", [48, 11, 12])
def test_ssim_equals_scikit_image_for_each_image(truth: Tensor, other: Tensor, size: int) -> None:
    truth, other = truth[..., :size, :], other[..., :size, :]
    expected = [
        structural_similarity(
            t,
            o,
            data_range=1,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for t, o in zip(*map(as_numpy, (truth, other)), strict=True)
    ]
    np.testing.assert_allclose(
        ssim(ImageBatch(other).rgb, ImageBatch(truth).rgb), expected, rtol=1e-4
    )


def test_ssim_of_images_smaller_than_its_window(truth: Tensor, other: Tensor) -> None:
    small = ssim(ImageBatch(other[..., :8, :8]).rgb, ImageBatch(truth[..., :8, :8]).rgb)
    assert ((small > -1) & (small < 1)).all()
    same = ImageBatch(truth[..., :6, :6]).rgb
    np.testing.assert_allclose(ssim(same, same), 1, atol=1e-6)
    with pytest.raises(ValueError, match="at least 6 px, got 5x5"):
        ssim(same[..., :5, :5], same[..., :5, :5])


def test_l1_is_in_units_of_110_and_ignores_lightness() -> None:
    truth = torch.zeros(2, 3, 16, 16)
    result = truth.clone()
    result[0, 1] = 11.0  # a off by a tenth, b right
    result[1, 1:] = -55.0
    result[:, 0] = 77.0
    torch.testing.assert_close(l1(result, truth), torch.tensor([0.05, 0.5]))


def test_equal_images_have_the_best_scores(truth: Tensor) -> None:
    rows = per_image(image_versions(truth, truth))
    np.testing.assert_array_equal(rows["l1.generated"], np.zeros(8))
    np.testing.assert_array_equal(rows["psnr.generated"], np.full(8, 100))  # the floor of 1e-10
    np.testing.assert_allclose(rows["ssim.generated"], 1, atol=1e-6)
    np.testing.assert_array_equal(rows["colourfulness.generated"], rows["colourfulness.truth"])


def test_psnr_of_a_known_error() -> None:
    torch.testing.assert_close(
        psnr(torch.tensor([0.01, 1.0, 0.0])), torch.tensor([20.0, 0.0, 100.0])
    )


def test_colourfulness_of_two_halves() -> None:
    """Half red, half green: rg is +-255 (mean 0, deviation 255), yb is always 127.5."""
    rgb = torch.zeros(1, 3, 4, 4)
    rgb[:, 0, :, :2] = 1
    rgb[:, 1, :, 2:] = 1
    torch.testing.assert_close(colourfulness(rgb), torch.tensor([255 + 0.3 * 127.5]))


def test_colourfulness_equals_its_formula_on_photographs(truth: Tensor) -> None:
    for result, rgb in zip(
        colourfulness(ImageBatch(truth).rgb), as_numpy(truth) * 255, strict=True
    ):
        red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
        rg, yb = red - green, 0.5 * (red + green) - blue
        expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
        assert float(result) == pytest.approx(expected, rel=1e-4)


def test_the_absolute_variant_equals_its_formula_on_photographs(truth: Tensor) -> None:
    for result, rgb in zip(
        colourfulness_absolute(ImageBatch(truth).rgb), as_numpy(truth) * 255, strict=True
    ):
        rg, yb = (
            np.abs(rgb[..., 0] - rgb[..., 1]),
            np.abs(0.5 * (rgb[..., 0] + rgb[..., 1]) - rgb[..., 2]),
        )
        expected = np.sqrt(rg.var() + yb.var()) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
        assert float(result) == pytest.approx(expected, rel=1e-4)


def test_grayscale_has_the_true_lightness_and_no_colour(truth: Tensor, other: Tensor) -> None:
    rows = per_image(image_versions(other, truth))
    np.testing.assert_allclose(rows["colourfulness.grey"], 0, atol=0.1)
    np.testing.assert_allclose(
        rows["l1.grey"], truth[:, 1:].abs().mean(dim=(1, 2, 3)) / 110, rtol=1e-5
    )
    grey = as_numpy(ImageBatch(truth).with_ab(0, 0).lab)
    expected = [
        peak_signal_noise_ratio(t, g, data_range=1)
        for t, g in zip(as_numpy(truth), grey, strict=True)
    ]
    np.testing.assert_allclose(rows["psnr.grey"], expected, rtol=1e-5)
