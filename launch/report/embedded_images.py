"""Images embedded in the page as WebP data URIs, few and small enough for phones."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from launch.report.run_history import RunHistory

_QUALITY = 82
_MAX_GRIDS = 24  # sample grids in a page, divided among its runs


def webp(image: np.ndarray | Image.Image, lossless: bool = False) -> str:
    """Return an image as a data URI; an array must be (H, W, 3) or (H, W, 4) uint8."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    with io.BytesIO() as buffer:
        image.save(buffer, "WEBP", quality=_QUALITY, method=4, lossless=lossless)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def sample_grids(history: RunHistory, num_runs: int) -> list[dict[str, object]]:
    """Return evenly spaced sample grids of a run, including the first and the last.

    Each is {"step", "images", "src", "width", "height"}. With several runs on the page,
    fewer grids per run are returned.
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
    """Return at most `most` of the items, including the first and the last."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[place] for place in places]
