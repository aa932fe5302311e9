"""Tests of color: equal to scikit-image, and packed within the stated error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.color import lab2rgb, rgb2lab

from shards.color import gamut_mapped_rgb, lab_to_rgb, pack, rgb_to_lab, unpack
from tests.support.photographs import NAMES, photograph


@pytest.mark.parametrize("name", NAMES)
def test_rgb_to_lab_equals_scikit_image(name: str) -> None:
    image = photograph(name)
    np.testing.assert_allclose(rgb_to_lab(image), rgb2lab(image).transpose(2, 0, 1), atol=1e-3)


def test_packed_error_bounds_hold_for_the_srgb_cube() -> None:
    steps = np.unique([*range(0, 256, 5), *range(20), 254, 255]).astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(len(steps), -1, 3)
    lab = rgb2lab(cube).transpose(2, 0, 1)
    error = np.abs(unpack(pack(rgb_to_lab(cube))) - lab).reshape(3, -1).max(1)
    assert error[0] <= 0.5 / 2.55 + 1e-3
    assert error[1:].max() <= 0.5 + 1e-3


def test_float16_error_is_at_most_half_a_unit_in_the_last_place() -> None:
    lab = rgb_to_lab(photograph())
    # Half a unit in the last place of values from 64 to 128.
    assert np.abs(unpack(pack(lab, "float16")) - lab).max() <= 2**-5


def test_lab_to_rgb_equals_scikit_image() -> None:
    lab = rgb_to_lab(photograph("coffee"))
    expected = np.rint(lab2rgb(lab.transpose(1, 2, 0)) * 255)
    assert np.abs(lab_to_rgb(lab) - expected).max() <= 1


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_round_trip_returns_the_image(rgb: np.ndarray) -> None:
    assert np.abs(lab_to_rgb(rgb_to_lab(rgb)).astype(int) - rgb).max() <= 1


def extreme_lab() -> np.ndarray:
    """Every L from black to white, 12 hues and chroma 0 to 200: (3, 101, 132)."""
    hue = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    chroma = np.linspace(0, 200, 11)[:, None]
    a, b = (chroma * np.cos(hue)).ravel(), (chroma * np.sin(hue)).ravel()
    L = np.arange(101.0)[:, None]
    return np.stack(np.broadcast_arrays(L, a, b))


@pytest.mark.parametrize("factor", [1, 1e5], ids=["chroma to 200", "chroma to 2e7"])
def test_gamut_mapping_keeps_the_lightness_of_any_colours(factor: float) -> None:
    lab = extreme_lab()
    lab[1:] *= factor
    result = gamut_mapped_rgb(lab)
    assert np.abs(rgb2lab(result)[..., 0] - lab[0]).max() <= 0.3
    assert (result[0] == 0).all(), "black"
    assert (result[-1] == 255).all(), "white"
    assert np.ptp(result[50].astype(int), axis=1).max() > 100, "it is not gray"


def test_gamut_mapping_keeps_the_hue_and_as_much_chroma_as_srgb_has() -> None:
    """The oracle searches sRGB itself: all colours of the faces of its cube."""
    lab = extreme_lab()[:, 5:96:10, 120:]  # chroma 200: all are outside sRGB
    mapped = rgb2lab(gamut_mapped_rgb(lab)).reshape(-1, 3)
    levels = np.arange(0, 256, 3)
    side = np.stack(np.meshgrid(levels, levels), -1).reshape(-1, 2)
    faces = [np.insert(side, axis, end, axis=1) for axis in range(3) for end in (0, 255)]
    surface = rgb2lab(np.concatenate(faces).astype(np.uint8)[None])[0]
    distances = [np.linalg.norm(surface - each, axis=1).min() for each in mapped]
    assert max(distances) < 2, "on the surface of sRGB"
    away = np.hypot(mapped[:, 1], mapped[:, 2]) > 15
    turned = np.angle((mapped[:, 1] + 1j * mapped[:, 2]) / (lab[1] + 1j * lab[2]).ravel())
    assert away.mean() > 0.8
    assert np.abs(turned[away]).max() < np.radians(3)


@pytest.mark.parametrize("name", NAMES)
def test_gamut_mapping_changes_no_colour_of_srgb(name: str) -> None:
    lab = rgb_to_lab(photograph(name))
    assert np.array_equal(gamut_mapped_rgb(lab), lab_to_rgb(lab))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chroma", [1.5, 4, -4])
def test_gamut_mapping_keeps_the_lightness_of_photographs(name: str, chroma: float) -> None:
    image = photograph(name)[::3, ::3]
    lab = rgb_to_lab(image)
    lab[1:] *= chroma
    clipped, mapped = (rgb2lab(f(lab))[..., 0] for f in (lab_to_rgb, gamut_mapped_rgb))
    before = rgb2lab(image)[..., 0]
    assert np.abs(clipped - before).max() > 1, "the colours leave sRGB"
    assert np.abs(mapped - before).max() <= 0.3


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint8, (3, 4, 5)))
def test_packing_unpacked_values_is_exact(stored: np.ndarray) -> None:
    assert np.array_equal(pack(unpack(stored)), stored)


def test_result_does_not_depend_on_chunks() -> None:
    image = photograph()[:131, :197]
    rows = np.concatenate([rgb_to_lab(image[row : row + 1]) for row in range(len(image))], 1)
    np.testing.assert_allclose(rgb_to_lab(image), rows, atol=1e-4)
