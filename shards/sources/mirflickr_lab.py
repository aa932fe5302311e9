"""Read the 25,000 photographs of MIRFLICKR-25k that Kaggle has as CIELAB arrays.

https://www.kaggle.com/datasets/shravankumar9892/image-colorization

l/gray_scale.npy   L: (25000, 224, 224) uint8
ab/ab/ab1.npy      a and b of the first 10,000 images: (10000, 224, 224, 2) uint8
ab/ab/ab2.npy      of the next 10,000, and so on

The arrays have OpenCV's encoding of CIELAB in 8 bits (`cv2.COLOR_RGB2LAB`): L x 2.55,
a + 128, b + 128, rounded. This is also the stored format of the shards in 8 bits.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shards.color import unpack
from shards.errors import UserError, first_line

SIDE = 224
_PIXELS = SIDE * SIDE
LIGHTNESS = "gray_scale.npy"
_AB_NAME = re.compile(r"ab([1-9]\d*)\.npy")
# Where the arrays are in the unpacked archive, or after moving them to one folder.
_LIGHTNESS_FOLDERS, _AB_FOLDERS = (".", "l"), (".", "ab", "ab/ab")


class ArrayFile(NamedTuple):
    """A .npy file with one array: its rows, and where the first one begins."""

    path: Path
    num_rows: int
    offset: int  # in bytes


class LabArrays(NamedTuple):
    """The arrays of the dataset: L, and a and b in files with consecutive rows."""

    lightness: ArrayFile
    ab: tuple[ArrayFile, ...]


def is_lab_folder(folder: Path) -> bool:
    """Return whether a folder has the arrays of L."""
    return any((folder / each / LIGHTNESS).is_file() for each in _LIGHTNESS_FOLDERS)


@lru_cache(maxsize=8)
def find_arrays(folder: str) -> LabArrays:
    """Return the arrays of a folder, whose headers are read.

    Raises UserError if an array is missing, damaged, or of another shape or type.
    """
    root = Path(folder)
    paths = (root / each / LIGHTNESS for each in _LIGHTNESS_FOLDERS)
    lightness = _open_array(next(path for path in paths if path.is_file()), (SIDE, SIDE))
    ab = tuple(_open_array(path, (SIDE, SIDE, 2)) for path in _ab_paths(root))
    num_ab = sum(each.num_rows for each in ab)
    if num_ab != lightness.num_rows:
        found = ", ".join(each.path.name for each in ab) or "no ab1.npy"
        raise UserError(
            f"{lightness.path} has {lightness.num_rows:,} images, but there are a and b of "
            f"{num_ab:,} ({found}): put all arrays of the dataset into {folder}"
        )
    return LabArrays(lightness, ab)


def _ab_paths(root: Path) -> list[Path]:
    """Return ab1.npy, ab2.npy, ..., without those after a missing one."""
    for folder in _AB_FOLDERS:
        numbers = {
            int(match[1]): path
            for path in (root / folder).glob("ab*.npy")
            if (match := _AB_NAME.fullmatch(path.name)) and path.is_file()
        }
        if numbers:
            return [numbers[each] for each in range(1, len(numbers) + 1) if each in numbers]
    return []


def _open_array(path: Path, row_shape: tuple[int, ...]) -> ArrayFile:
    """Return the rows of a .npy file of uint8 rows of this shape, without reading them.

    Raises UserError for any other file, and for one that is cut short.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # damaged headers can raise many types
        raise UserError(f"{path} is damaged ({first_line(error)}): download it again") from None
    expected = " x ".join(map(str, row_shape))
    if not isinstance(array, np.memmap) or array.shape[1:] != row_shape:
        raise UserError(f"{path} is not an array of images of {expected}: download it again")
    if array.dtype != np.uint8 or not array.flags.c_contiguous:
        raise UserError(
            f"{path} has values of type {array.dtype}, not OpenCV's 8-bit CIELAB (uint8, in C "
            "order): download it again"
        )
    return ArrayFile(path, len(array), array.offset)


def read_row(folder: str, row: int) -> bytes:
    """Return the L bytes of an image, (224, 224), and its ab bytes, (224, 224, 2).

    Raises OSError if they cannot be read.
    """
    lightness, ab = find_arrays(folder)
    data = _read(lightness, row, _PIXELS)
    for each in ab:
        if row < each.num_rows:
            return data + _read(each, row, 2 * _PIXELS)
        row -= each.num_rows
    raise OSError(f"there are no a and b of image {row}")


def _read(array: ArrayFile, row: int, size: int) -> bytes:
    # Not from the memory map: if the file is cut short meanwhile, SIGBUS would end the
    # process without a message.
    with open(array.path, "rb") as stream:
        stream.seek(array.offset + row * size)
        data = stream.read(size)
    if len(data) < size:
        raise OSError(f"{array.path} ends before the end of the image")
    return data


def to_lab(data: bytes) -> np.ndarray:
    """Return the CIELAB values of an image's bytes: (3, 224, 224) float32."""
    values = np.frombuffer(data, np.uint8)
    ab = values[_PIXELS:].reshape(SIDE, SIDE, 2).transpose(2, 0, 1)
    return unpack(np.concatenate([values[:_PIXELS].reshape(1, SIDE, SIDE), ab]))
