"""shards.color against scikit-image, and the packed form against what it promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.color import lab2rgb, rgb2lab

from shards.color import lab_to_rgb, pack, rgb_to_lab, unpack
from tests.support.photographs import NAMES, photograph


@pytest.mark.parametrize("name", NAMES)
def test_lab_is_scikit_images(name: str) -> None:
    picture = photograph(name)
    np.testing.assert_allclose(rgb_to_lab(picture), rgb2lab(picture).transpose(2, 0, 1), atol=1e-3)


def test_the_whole_cube_fits_the_packed_form() -> None:
    steps = np.unique([*range(0, 256, 5), *range(20), 254, 255]).astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(len(steps), -1, 3)
    lab = rgb2lab(cube).transpose(2, 0, 1)
    error = np.abs(unpack(pack(rgb_to_lab(cube))) - lab).reshape(3, -1).max(1)
    assert error[0] <= 0.5 / 2.55 + 1e-3
    assert error[1:].max() <= 0.5 + 1e-3


def test_float16_is_a_hundred_times_finer() -> None:
    lab = rgb_to_lab(photograph())
    assert (
        np.abs(unpack(pack(lab, "float16")) - lab).max() <= 2**-5
    )  # half a unit in the last place of 64 ... 128


def test_back_to_rgb_is_scikit_images() -> None:
    lab = rgb_to_lab(photograph("coffee"))
    theirs = np.rint(lab2rgb(lab.transpose(1, 2, 0)) * 255)
    assert np.abs(lab_to_rgb(lab) - theirs).max() <= 1


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_round_trip_returns_the_picture(rgb: np.ndarray) -> None:
    assert np.abs(lab_to_rgb(rgb_to_lab(rgb)).astype(int) - rgb).max() <= 1


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint8, (3, 4, 5)))
def test_packing_what_was_unpacked_changes_nothing(stored: np.ndarray) -> None:
    assert np.array_equal(pack(unpack(stored)), stored)


def test_pictures_larger_than_a_chunk_have_no_seams() -> None:
    picture = photograph()[:131, :197]
    rows = np.concatenate([rgb_to_lab(picture[row : row + 1]) for row in range(len(picture))], 1)
    np.testing.assert_allclose(rgb_to_lab(picture), rows, atol=1e-4)
