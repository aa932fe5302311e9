"""Embed images in the report's page as WebP data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from launch.report.run_history import RunHistory

# Number and size of the images are limited, so that phones can open the page.
_QUALITY = 82
_MAX_GRIDS = 24  # sample grids in a page, divided among its runs


def webp(image: np.ndarray | Image.Image, lossless: bool = False) -> str:
    """Return an image as a data URI in WebP format.

    image: a Pillow image, or an array, (H, W, 3) or (H, W, 4) uint8.
    """
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    with io.BytesIO() as buffer:
        image.save(buffer, "WEBP", quality=_QUALITY, method=4, lossless=lossless)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def sample_grids(history: RunHistory, num_runs: int) -> list[dict[str, object]]:
    """Return some of the sample grids that a run wrote during training, for the page.

    num_runs: number of runs in the report; the more, the fewer grids. Each grid is
    {"step", "images", "src", "width", "height"}, where "src" is the image as a data
    URI.
    """
    chosen = evenly_spaced(history.samples, max(4, _MAX_GRIDS // num_runs))
    return [
        {"step": step, "images": step * history.recipe.batch_size, **_image_attributes(path)}
        for step, path in chosen
    ]


def _image_attributes(path: Path) -> dict[str, object]:
    with Image.open(path) as image:
        return {"src": webp(image.convert("RGB")), "width": image.width, "height": image.height}


def evenly_spaced(items: Sequence[tuple[int, Path]], most: int) -> list[tuple[int, Path]]:
    """Return at most `most` of the items, evenly spaced, first and last included."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[place] for place in places]
