"""Tests of color: equal to scikit-image, and packed within the stated error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.color import lab2rgb, rgb2lab

from shards.color import lab_to_rgb, pack, rgb_to_lab, unpack
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


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint8, (3, 4, 5)))
def test_packing_unpacked_values_is_exact(stored: np.ndarray) -> None:
    assert np.array_equal(pack(unpack(stored)), stored)


def test_result_does_not_depend_on_chunks() -> None:
    image = photograph()[:131, :197]
    rows = np.concatenate([rgb_to_lab(image[row : row + 1]) for row in range(len(image))], 1)
    np.testing.assert_allclose(rgb_to_lab(image), rows, atol=1e-4)
