"""Real photographs for the tests: scikit-image's bundled ones, whole and in pieces."""

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
    """A photograph as (H, W, 3) uint8."""
    picture: np.ndarray = getattr(data, name)()
    return picture


def encode(picture: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of a picture in a file format of Pillow's."""
    stream = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(stream, kind, **options)
    return stream.getvalue()


def random_crops(count: int, side: int = 48) -> Iterator[np.ndarray]:
    """Different squares cut out of the photographs."""
    random = np.random.default_rng(7)
    for number in range(count):
        picture = photograph(NAMES[number % len(NAMES)])
        top, left = (random.integers(0, extent - side) for extent in picture.shape[:2])
        yield picture[top : top + side, left : left + side]


def make_folder(folder: Path, count: int, side: int = 48) -> Path:
    """A folder tree of `count` small JPEG and PNG photographs."""
    for number, piece in enumerate(random_crops(count, side)):
        kind, suffix = (("JPEG", "jpg"), ("PNG", "png"))[number % 2]
        path = folder / f"class{number % 3}" / f"photo {number:03d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(piece, kind))
    return folder


def pack_folder(
    source: Path | str, out: Path, workers: int = 1, strict: bool = False, **options: Any
) -> BuildResult:
    """Build a shard set in this process, silently; 32 pixels unless told."""
    parameters = Parameters(**{"size": 32, **options})
    return build(
        str(source), parameters, BuildOptions(out=out, workers=workers, strict=strict, quiet=True)
    )


def fingerprint(root: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
