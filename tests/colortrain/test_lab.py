"""Lab codecs and conversion on tensors, against scikit-image; finite gradients."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.color
import skimage.data
import torch

from colortrain.lab import (
    Codec,
    LabCodec,
    SymmetricCodec,
    UnitCodec,
    encode_stored,
    lab_to_rgb,
    stored_to_lab,
)
from shards.color import pack, unpack


def photo() -> torch.Tensor:
    lab = skimage.color.rgb2lab(skimage.data.astronaut()[:128, 100:228])
    return torch.from_numpy(lab.transpose(2, 0, 1)[None].copy())


def test_lab_to_rgb_equals_skimage() -> None:
    lab = photo()
    expected = skimage.color.lab2rgb(lab[0].permute(1, 2, 0).numpy())
    np.testing.assert_allclose(lab_to_rgb(lab)[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*negative Z values")
def test_lab_to_rgb_clips_like_skimage_outside_the_gamut() -> None:
    torch.manual_seed(0)
    lab = torch.rand(1, 3, 40, 40, dtype=torch.float64) * torch.tensor([100.0, 240, 240]).view(
        3, 1, 1
    )
    lab -= torch.tensor([0.0, 120, 120]).view(3, 1, 1)
    expected = skimage.color.lab2rgb(lab[0].permute(1, 2, 0).numpy())
    np.testing.assert_allclose(lab_to_rgb(lab)[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "lab", [(0.0, 0, 0), (0, 100, -100), (100, 0, 0), (50, 120, 120), (1e-6, 0, 0)]
)
def test_gradient_is_finite(lab: tuple[float, float, float]) -> None:
    x = torch.tensor(lab, dtype=torch.float32).view(1, 3, 1, 1).requires_grad_()
    lab_to_rgb(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_stored_to_lab_equals_numpy(dtype: str) -> None:
    stored = pack(photo()[0].numpy().astype(np.float32), dtype)
    ours = stored_to_lab(torch.from_numpy(stored)[None])[0].numpy()
    np.testing.assert_array_equal(ours, unpack(stored))


def test_symmetric_codec_scales_and_inverts() -> None:
    lab = torch.tensor([[0.0, -110, 110], [50, 0, 55], [100, 110, 0]]).T.reshape(1, 3, 1, 3)
    L, ab = SymmetricCodec().encode(lab)
    assert L.flatten().tolist() == [-1, 0, 1]
    assert ab[0, :, 0].tolist() == [[-1, 0, 1], [1, 0.5, 0]]
    torch.testing.assert_close(SymmetricCodec().decode(L, ab), lab)


def test_the_unit_codec_inverts_itself_and_the_papers_decoding_does_not() -> None:
    """Equation 1 of Arun is off by 0 at ab = -128, 0.5 at 0 (nearly), 1.0 at 127."""
    ab = torch.arange(-128.0, 128, dtype=torch.float64).view(1, 1, -1, 1).expand(1, 2, -1, 1)
    L, colour = UnitCodec().encode(torch.cat([ab[:, :1], ab], 1))
    assert (colour.min(), colour.max()) == (0, 1)
    torch.testing.assert_close(UnitCodec().decode(L, colour)[:, 1:], ab, rtol=0, atol=1e-12)
    error = ((colour - 0.5) * 256 - ab)[0, 0, :, 0]
    assert error[[0, 128, 255]].tolist() == pytest.approx([0, 128 / 255, 1])
    assert error.abs().max() == pytest.approx(1)


@pytest.mark.parametrize("codec", [SymmetricCodec(), LabCodec(), UnitCodec()])
@pytest.mark.parametrize(("count", "size"), [(3, 300), (7, 40), (130, 32)])
def test_encode_stored_equals_encode(codec: Codec, count: int, size: int) -> None:
    """All 256 values in all channels, and more and fewer images than one chunk."""
    stored = (torch.arange(count * 3 * size * size).view(count, 3, size, size) * 97 % 256).to(
        torch.uint8
    )
    for short, long in zip(
        encode_stored(codec, stored), codec.encode(stored_to_lab(stored)), strict=True
    ):
        torch.testing.assert_close(short, long, rtol=0, atol=3e-7)
