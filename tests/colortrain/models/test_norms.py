"""PixelNorm and minibatch standard deviation against closed forms."""

from __future__ import annotations

import pytest
import torch

from colortrain.models.norms import MinibatchStddev, PixelNorm


@pytest.mark.parametrize("scale", [1e-6, 1.0, 300.0])
def test_pixel_norm_in_bfloat16_has_rounding_error_only(scale: float) -> None:
    """It differs from float64 only by rounding the result, at most half of 2^-8."""
    torch.manual_seed(0)
    x = (scale * torch.randn(2, 512, 3, 3)).bfloat16()
    wide = x.double()
    exact = wide / (wide.square().mean(1, keepdim=True) + 1e-8).sqrt()
    result = PixelNorm()(x)
    assert result.dtype == torch.bfloat16
    assert ((result.double() - exact).abs() <= 2**-8 * exact.abs()).all()


def test_pixel_norm_sets_the_mean_square_to_one() -> None:
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(
        PixelNorm()(x).square().mean(1), torch.ones(2, 3, 3, dtype=torch.float64)
    )
    assert PixelNorm()(torch.zeros(1, 8, 2, 2)).abs().max() == 0


def test_pixel_norm_is_unchanged_by_autocast() -> None:
    x = torch.randn(2, 8, 3, 3)
    outside = PixelNorm()(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(PixelNorm()(x), outside)


def test_stddev_of_equal_images_is_zero_with_finite_gradients() -> None:
    x = torch.randn(1, 6, 4, 4).repeat(5, 1, 1, 1).requires_grad_()
    out = MinibatchStddev()(x)
    assert out.shape == (5, 7, 4, 4)
    assert torch.equal(out[:, :6], x)
    assert out[:, 6].abs().max() == 0
    out[:, 6].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_stddev_of_two_images_is_half_their_distance() -> None:
    x = torch.zeros(2, 3, 2, 2, dtype=torch.float64)
    x[1, 0] = 6.0  # deviations 3, 0, 0: mean 1
    assert MinibatchStddev()(x)[:, 3].tolist() == [[[1.0, 1.0], [1.0, 1.0]]] * 2
