"""A tiny shard set of real photographs for tests: cut-outs of scikit-image's bundled pictures, no download."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from shards.files import sha256_of, write_whole
from shards.format import (
    MEMBER,
    ONE_SPLIT,
    Manifest,
    Shard,
    key_name,
    member_bytes,
    member_header,
    save_manifest,
    split_folder,
)
from shards.lab import pack, rgb_to_lab

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


@lru_cache(maxsize=8)
def photograph(name: str) -> np.ndarray:
    """(H, W, 3) uint8: "astronaut", "chelsea", "coffee" or "rocket"."""
    return np.asarray(getattr(data, name)())


def cut_outs(size: int, count: int) -> np.ndarray:
    """`count` different squares of the photographs in turn, scaled to `size`: (count, size, size, 3) uint8."""
    draw = np.random.default_rng(0)
    squares = []
    for number in range(count):
        image = photograph(PHOTOGRAPHS[number % len(PHOTOGRAPHS)])
        side = int(draw.integers(max(size, 100), min(image.shape[:2])))
        top, left = (int(draw.integers(0, length - side + 1)) for length in image.shape[:2])
        cut = Image.fromarray(image[top : top + side, left : left + side])
        squares.append(np.asarray(cut.resize((size, size), Image.Resampling.BICUBIC)))
    return np.stack(squares)


def small_set(
    folder: Path, size: int = 32, count: int = 12, splits: Sequence[str] = (ONE_SPLIT,), dtype: str = "uint8"
) -> Path:
    """Write `count` samples into `folder` as a shard set, shared out evenly over `splits`, shards of 5; the folder.

    The same arguments give the same bytes; splits hold different cut-outs.
    """
    stored = [pack(rgb_to_lab(rgb), dtype) for rgb in cut_outs(size, count)]
    shards = {}
    for split, keys in zip(splits, np.array_split(np.arange(count), len(splits)), strict=True):
        shards[split] = _write_split(folder, split, keys, stored)
    save_manifest(Manifest(size=size, fit="crop", dtype=dtype, splits=shards, left_out={}), folder)
    return folder


def _write_split(folder: Path, split: str, keys: np.ndarray, stored: Sequence[np.ndarray]) -> tuple[Shard, ...]:
    shards, table = [], []
    for number, start in enumerate(range(0, len(keys), 5)):
        part = keys[start : start + 5]
        path = split_folder(folder, split) / f"{number:06d}.tar"
        table += _write_tar(path, part, stored)
        shards.append(
            Shard(
                path=path.relative_to(folder).as_posix(),
                samples=len(part),
                bytes=path.stat().st_size,
                sha256=sha256_of(path),
            )
        )
    stream = BytesIO()
    np.save(stream, np.array(table, np.int64).reshape(-1, 2))
    write_whole(split_folder(folder, split) / "index.npy", stream.getvalue())
    return tuple(shards)


def _write_tar(path: Path, keys: np.ndarray, stored: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Write one tar; the key and the offset of the content of each member."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key in keys.tolist():
            pixels = stored[key]
            content = member_header(pixels.shape[1], str(pixels.dtype)) + pixels.tobytes()
            entry = tarfile.TarInfo(f"{key_name(key)}.{MEMBER}")
            entry.size = member_bytes(pixels.shape[1], str(pixels.dtype))
            rows.append((key, tar.offset + tarfile.BLOCKSIZE))
            tar.addfile(entry, BytesIO(content))
    return rows
