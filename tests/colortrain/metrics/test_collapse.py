"""Bright spots and sepia: constructed images, and photographs with added failures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.measure import label
from torch import Tensor

from colortrain.metrics.collapse import (
    LARGEST,
    MARGIN,
    bright_spots,
    chroma,
    greatest_chroma_nearby,
    sepia,
)
from shards.color import rgb_to_lab
from tests.support.small_shard_set import cut_outs

NEON = torch.tensor([80.0, -70.0])  # a, b


SEPIA = np.array(
    [[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]]
)  # the photo filter, on sRGB


@pytest.fixture(scope="module", params=[64, 256])
def photographs(request: pytest.FixtureRequest) -> Tensor:
    """Eight photographs, CIELAB."""
    return as_lab(cut_outs(request.param, 8))


@pytest.fixture(scope="module")
def toned(photographs: Tensor) -> Tensor:
    """The same photographs in a sepia tone, CIELAB."""
    rgb = cut_outs(photographs.shape[-1], 8)
    return as_lab((rgb @ SEPIA.T).clip(0, 255).astype(np.uint8))


def as_lab(rgb: np.ndarray) -> Tensor:
    """Convert (B, H, W, 3) uint8 to (B, 3, H, W) CIELAB."""
    return torch.tensor(np.stack([rgb_to_lab(image) for image in rgb]))


def coloured(lab: Tensor, a: float | Tensor, b: float | Tensor) -> Tensor:
    """Return the same lightness in another colour."""
    colour = torch.as_tensor([a, b], dtype=lab.dtype).view(2, 1, 1).expand_as(lab[:, 1:])
    return torch.cat([lab[:, :1], colour], dim=1)


def with_spots(lab: Tensor, side: int, positions: list[tuple[int, int]]) -> Tensor:
    """Return `lab` with neon squares at (top, left)."""
    spoiled = lab.clone()
    for top, left in positions:
        spoiled[:, 1:, top : top + side, left : left + side] = NEON.view(2, 1, 1)
    return spoiled


def test_each_failure_shows_in_its_own_metric(photographs: Tensor, toned: Tensor) -> None:
    size = photographs.shape[-1]
    side = size // 16
    spotted = with_spots(photographs, side, [(size // 4, size // 4), (size // 2, size // 8)])
    planted = 100 * 2 * side**2 / size**2
    spots = [bright_spots(version, photographs) for version in (photographs, toned, spotted)]
    assert spots[0].tolist() == [0] * 8
    assert float(spots[1].mean()) < planted / 10
    assert float(spots[2].mean()) > planted * 0.9
    away_from_one_hue = [1 - sepia(version) for version in (photographs, toned, spotted)]
    assert float(away_from_one_hue[1].mean()) < float(away_from_one_hue[0].mean()) / 5
    assert float(away_from_one_hue[2].mean()) > float(away_from_one_hue[0].mean()) / 2


def test_spots_are_counted_exactly() -> None:
    truth = torch.zeros(2, 3, 64, 64)
    result = with_spots(truth, 3, [(10, 10), (40, 50)])
    result[1] = 0
    assert bright_spots(result, truth).tolist() == pytest.approx([100 * 18 / 64**2, 0])


@pytest.mark.parametrize(
    ("height", "width", "window"), [(16, 40, 3), (64, 64, 5), (100, 130, 7), (256, 256, 17)]
)
def test_the_greatest_chroma_nearby_equals_scipys_maximum(
    height: int, width: int, window: int
) -> None:
    """The window reaches 1 / 32 of the shorter side, and at least one pixel."""
    lab = 50 * torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    expected = ndimage.maximum_filter(chroma(lab).numpy(), (1, window, window), mode="nearest")
    np.testing.assert_array_equal(greatest_chroma_nearby(lab), expected)


def test_spots_equal_components_that_scikit_image_finds() -> None:
    """Random specks, from single pixels to components that are too large."""
    random = torch.Generator().manual_seed(1)
    truth = torch.zeros(6, 3, 48, 64)
    lab = truth.clone()
    density = torch.tensor([0.0, 0.01, 0.05, 0.2, 0.3, 0.6]).view(6, 1, 1)
    lab[:, 1] = 2 * MARGIN * (torch.rand(6, 48, 64, generator=random) < density)
    expected = []
    for bright in lab[:, 1].numpy() > 0:
        sizes = np.bincount(label(bright, connectivity=2).ravel())[1:]
        expected.append(100 * sizes[sizes <= LARGEST * bright.size].sum() / bright.size)
    assert min(expected[1:4]) > 0.5
    assert expected[0] == 0
    np.testing.assert_allclose(bright_spots(lab, truth), expected, rtol=1e-6)


def test_pixels_touching_at_a_corner_are_one_spot() -> None:
    """1 % of 64 x 64 is 40 pixels.

    Two squares of 25 are two spots if apart, and together a component that is too
    large.
    """
    truth = torch.zeros(1, 3, 64, 64)
    assert float(bright_spots(with_spots(truth, 5, [(10, 10), (16, 16)]), truth)) == pytest.approx(
        100 * 50 / 64**2
    )
    assert float(bright_spots(with_spots(truth, 5, [(10, 10), (15, 15)]), truth)) == 0


def test_a_large_wrong_colour_is_not_a_spot() -> None:
    truth = torch.zeros(1, 3, 64, 64)
    assert float(bright_spots(coloured(truth, 100, 100), truth)) == 0
    assert float(bright_spots(with_spots(truth, 32, [(0, 0)]), truth)) == 0


@pytest.mark.parametrize(("excess", "result"), [(29.9, 0.0), (30.1, 100 / 32**2)])
def test_the_margin_is_above_the_true_chroma(excess: float, result: float) -> None:
    truth = coloured(torch.zeros(1, 3, 32, 32), 30, 40)  # chroma 50
    spotted = truth.clone()
    spotted[0, 1:, 5, 5] = torch.tensor([-0.6, 0.8]) * (50 + excess)
    assert float(bright_spots(spotted, truth)) == pytest.approx(result)


def test_a_true_colour_that_bled_slightly_is_not_a_spot() -> None:
    """At 64 px the neighbourhood extends by two pixels."""
    truth = with_spots(torch.zeros(1, 3, 64, 64), 3, [(20, 20)])
    assert float(bright_spots(truth.roll(2, dims=-1), truth)) == 0
    assert float(bright_spots(truth.roll(3, dims=-1), truth)) == pytest.approx(100 * 3 / 64**2)


def test_sepia_of_known_images() -> None:
    lab = torch.zeros(5, 3, 8, 8)
    lab[0] = 0  # grey
    lab[1, 1:] = 25  # one hue
    lab[2, 1, :4], lab[2, 1, 4:] = 30, -30  # opposite hues
    lab[3, 1, :4], lab[3, 2, 4:] = 30, 30  # a right angle
    lab[4, 1] = 0.25  # hardly any colour: grey, not one hue
    expected = torch.tensor([0, 1, 0, math.sqrt(0.5), 0.25])
    torch.testing.assert_close(sepia(lab), expected)


def test_sepia_is_weighted_by_chroma() -> None:
    lab = torch.zeros(1, 3, 4, 4)
    lab[0, 1, :2], lab[0, 1, 2:] = 90, -30
    torch.testing.assert_close(sepia(lab), torch.tensor([0.5]))


def test_sepia_does_not_depend_on_saturation(photographs: Tensor) -> None:
    strong = photographs.clone()
    strong[:, 1:] *= 20
    stronger = photographs.clone()
    stronger[:, 1:] *= 60
    torch.testing.assert_close(sepia(strong), sepia(stronger), atol=0.02, rtol=0)
