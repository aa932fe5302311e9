"""Photographs for the tests, bundled with scikit-image, and crops of them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from shards.builder.build import BuildOptions, build
from shards.builder.finalize import BuildResult
from shards.builder.plan import Parameters

NAMES = ("astronaut", "chelsea", "coffee", "rocket")


@cache
def photograph(name: str = "astronaut") -> np.ndarray:
    """Return a photograph: (H, W, 3) uint8, sRGB."""
    image: np.ndarray = getattr(data, name)()
    return image


def encode(image: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Encode an image in one of Pillow's formats; `options` are for `Image.save`."""
    stream = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(stream, kind, **options)
    return stream.getvalue()


def random_crops(count: int, side: int = 48) -> Iterator[np.ndarray]:
    """Yield `count` different crops of the photographs: (side, side, 3) uint8."""
    random = np.random.default_rng(7)
    for number in range(count):
        image = photograph(NAMES[number % len(NAMES)])
        top, left = (random.integers(0, extent - side) for extent in image.shape[:2])
        yield image[top : top + side, left : left + side]


def make_folder(folder: Path, count: int, side: int = 48) -> Path:
    """Write `count` small JPEG and PNG photographs into a folder tree."""
    for number, crop in enumerate(random_crops(count, side)):
        kind, suffix = (("JPEG", "jpg"), ("PNG", "png"))[number % 2]
        path = folder / f"class{number % 3}" / f"photo {number:03d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(crop, kind))
    return folder


def pack_folder(
    source: Path | str, out: Path, workers: int = 1, strict: bool = False, **options: Any
) -> BuildResult:
    """Build a shard set without output; the size is 32 pixels by default."""
    parameters = Parameters(**{"size": 32, **options})
    return build(
        str(source), parameters, BuildOptions(out=out, workers=workers, strict=strict, quiet=True)
    )


def fingerprint(root: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder tree, by relative path."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
