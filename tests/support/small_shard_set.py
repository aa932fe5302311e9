"""A tiny shard set for tests: crops of photographs bundled with scikit-image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from shards.color import pack, rgb_to_lab
from shards.format.index import INDEX, rebuild_index, write_index
from shards.format.manifest import ONE_SPLIT, Manifest, Shard, save_manifest, split_folder
from shards.format.tar_layout import TarOfSamples

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


@lru_cache(maxsize=8)
def photograph(name: str) -> np.ndarray:
    """Return one of PHOTOGRAPHS: (H, W, 3) uint8, sRGB."""
    return np.asarray(getattr(data, name)())


def cut_outs(size: int, count: int) -> np.ndarray:
    """Return `count` different square crops of the photographs, scaled to `size`.

    The array is (count, size, size, 3) uint8, sRGB.
    """
    random = np.random.default_rng(0)
    squares = []
    for number in range(count):
        image = photograph(PHOTOGRAPHS[number % len(PHOTOGRAPHS)])
        side = int(random.integers(max(size, 100), min(image.shape[:2])))
        top, left = (int(random.integers(0, length - side + 1)) for length in image.shape[:2])
        crop = Image.fromarray(image[top : top + side, left : left + side])
        squares.append(np.asarray(crop.resize((size, size), Image.Resampling.BICUBIC)))
    return np.stack(squares)


def small_set(
    folder: Path,
    size: int = 32,
    count: int = 12,
    splits: Sequence[str] = (ONE_SPLIT,),
    dtype: str = "uint8",
) -> Path:
    """Write a shard set of `count` samples into `folder`, and return the folder.

    The samples are divided evenly among `splits`, which have different crops, in shards
    of 5. The same arguments give the same bytes.
    """
    stored = [pack(rgb_to_lab(rgb), dtype) for rgb in cut_outs(size, count)]
    shards = {}
    for split, keys in zip(splits, np.array_split(np.arange(count), len(splits)), strict=True):
        shards[split] = _write_split(folder, split, keys, stored)
    save_manifest(
        Manifest(size=size, fit="crop", dtype=dtype, splits={**shards}, left_out={}), folder
    )
    return folder


def _write_split(
    folder: Path, split: str, keys: np.ndarray, stored: Sequence[np.ndarray]
) -> tuple[Shard, ...]:
    shards = []
    for number, start in enumerate(range(0, len(keys), 5)):
        path = (split_folder(Path(), split) / f"{number:06d}.tar").as_posix()
        shards.append(write_tar(folder, path, keys[start : start + 5].tolist(), stored))
    size, dtype = stored[0].shape[1], str(stored[0].dtype)
    table = rebuild_index([folder / shard.path for shard in shards], shards, size, dtype)
    write_index(split_folder(folder, split) / INDEX, table)
    return tuple(shards)


def write_tar(folder: Path, path: str, keys: Sequence[int], stored: Sequence[np.ndarray]) -> Shard:
    """Write a tar of the samples `keys`; `stored` has the pixels of every key."""
    with TarOfSamples(folder, path, stored[0].shape[1], str(stored[0].dtype)) as tar:
        for key in keys:
            tar.add(key, stored[key].tobytes())
    assert tar.shard
    return tar.shard
