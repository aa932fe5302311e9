"""Tests of mirflickr_lab: shards have the values that OpenCV's formulas give."""

import os
from pathlib import Path

import numpy as np
import pytest
from skimage import color

from shards.errors import UserError
from shards.format.manifest import load_manifest
from shards.format.tar_layout import read_pixels
from shards.sources.listing import open_sources
from shards.sources.mirflickr_lab import read_row, to_lab
from tests.support.dataset_layouts import make_lab_arrays, opencv_lab
from tests.support.photographs import pack_folder, random_crops

ELSEWHERE = Path("/nonexistent")


def photographs(count: int) -> np.ndarray:
    return np.stack(list(random_crops(count, 224)))


def stored(root: Path, size: int, dtype: str = "uint8") -> np.ndarray:
    """Return the samples of a shard set in the order of their source: (N, 3, H, W)."""
    (shard,) = load_manifest(root).splits["all"]
    (pixels,) = read_pixels(root / shard.path, shard.samples, size, dtype, chunk=shard.samples)
    order = np.argsort(np.random.Philox(key=0).random_raw(len(pixels)), kind="stable")
    return pixels[np.argsort(order)]


def test_at_its_own_size_every_byte_is_kept(tmp_path: Path) -> None:
    lab = make_lab_arrays(tmp_path / "kaggle")
    pack_folder(tmp_path / "kaggle", tmp_path / "out", size=224, shard_size=6)
    assert np.array_equal(stored(tmp_path / "out", 224), lab.transpose(0, 3, 1, 2))


def test_float16_has_the_values_of_the_8_bit_encoding(tmp_path: Path) -> None:
    lab = make_lab_arrays(tmp_path / "kaggle", (1,)).astype(np.float64)
    pack_folder(tmp_path / "kaggle", tmp_path / "out", size=224, dtype="float16")
    expected = np.stack([lab[..., 0] * 100 / 255, lab[..., 1] - 128, lab[..., 2] - 128], 1)
    np.testing.assert_allclose(stored(tmp_path / "out", 224, "float16"), expected, atol=2**-5)


def test_colours_are_those_of_the_photographs(tmp_path: Path) -> None:
    make_lab_arrays(tmp_path / "kaggle")
    for row, expected in enumerate(photographs(6)):
        lab = to_lab(read_row(str(tmp_path / "kaggle"), row))
        found = color.lab2rgb(lab.transpose(1, 2, 0)) * 255
        assert abs(found - expected).mean() < 1  # the rounding of 8 bits


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_resized_arrays_are_close_to_resized_photographs(tmp_path: Path, fit: str) -> None:
    from PIL import Image

    make_lab_arrays(tmp_path / "kaggle", (2,))
    pack_folder(tmp_path / "kaggle", tmp_path / "out", size=56, fit=fit, shard_size=2)
    for found, photograph in zip(stored(tmp_path / "out", 56), photographs(2), strict=True):
        small = Image.fromarray(photograph).resize((56, 56), Image.Resampling.BICUBIC)
        expected = opencv_lab(np.asarray(small)).transpose(2, 0, 1)
        # Not equal: there, the mean of light and dark pixels is one of sRGB values.
        assert abs(found.astype(float) - expected).mean() < 1.5


def test_grey_images_are_left_out_on_request(tmp_path: Path) -> None:
    make_lab_arrays(tmp_path / "kaggle", (3,))
    path = tmp_path / "kaggle" / "ab" / "ab" / "ab1.npy"
    ab = np.load(path)
    ab[1] = 128
    np.save(path, ab)
    result = pack_folder(tmp_path / "kaggle", tmp_path / "out", drop_grey=True)
    assert (result.num_packed, result.manifest.left_out) == (2, {"grey": 1})
    assert "gray_scale.npy#00001\tgrey" in (tmp_path / "out" / "left_out.tsv").read_text()


def test_arrays_in_one_folder_are_found(tmp_path: Path) -> None:
    make_lab_arrays(tmp_path)
    for path in (tmp_path / "ab" / "ab").iterdir():
        path.rename(tmp_path / "ab" / path.name)
    (tmp_path / "l" / "gray_scale.npy").rename(tmp_path / "gray_scale.npy")
    assert len(open_sources(str(tmp_path), ELSEWHERE).sources) == 6


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    make_lab_arrays(tmp_path, (2, 1, 1))
    (tmp_path / "ab" / "ab" / "ab2.npy").unlink()
    message = r"gray_scale.npy has 4 images, but there are a and b of 2 \(ab1.npy\): put all"
    with pytest.raises(UserError, match=message):
        open_sources(str(tmp_path), ELSEWHERE)


class Executed:
    """An object whose unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_other_arrays_are_one_line_and_execute_nothing(tmp_path: Path) -> None:
    lab = make_lab_arrays(tmp_path, (1,))
    path = tmp_path / "l" / "gray_scale.npy"
    marker = tmp_path / "executed"
    cases = {
        "has values of type float64": lab[..., 0] / 255,
        "has values of type uint8": np.asfortranarray(np.concatenate([lab[..., 0]] * 2)),
        "is not an array of images of 224 x 224:": lab[:, :100, :, 0],
        "is damaged": np.array([Executed(marker)], dtype=object),
    }
    for number, (message, array) in enumerate(cases.items()):
        folder = tmp_path / str(number)  # a path's headers are read once
        folder.mkdir()
        np.save(folder / "gray_scale.npy", array)
        with pytest.raises(UserError, match=message) as caught:
            open_sources(str(folder), ELSEWHERE)
        assert "\n" not in str(caught.value)
    np.load(tmp_path / "3" / "gray_scale.npy", allow_pickle=True)
    assert marker.exists()  # the attack works where pickles are loaded
    data = path.read_bytes()
    for damaged in (data[:-1], data[:9] + b"\xff" + data[10:]):  # the length of the header
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged") as caught:
            open_sources(str(tmp_path), ELSEWHERE)
        assert "\n" not in str(caught.value)


def test_file_that_is_cut_short_later_leaves_its_images_out(tmp_path: Path) -> None:
    make_lab_arrays(tmp_path, (2,))
    assert len(read_row(str(tmp_path), 1)) == 3 * 224 * 224
    os.truncate(tmp_path / "l" / "gray_scale.npy", 70_000)
    with pytest.raises(OSError, match="ends before the end of the image"):
        read_row(str(tmp_path), 1)
