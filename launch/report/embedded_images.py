"""Pictures inside the page: WebP as data URIs, few and small enough for a phone."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from launch.report.run_history import Story

_QUALITY = 82
_FRAMES = 24  # sample grids in a page, shared by its runs


def webp(picture: np.ndarray | Image.Image, lossless: bool = False) -> str:
    """A data URI of (H, W, 3) or (H, W, 4) uint8."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    with io.BytesIO() as room:
        image.save(room, "WEBP", quality=_QUALITY, method=4, lossless=lossless)
        return "data:image/webp;base64," + base64.b64encode(room.getvalue()).decode()


def frames(story: Story, runs: int) -> list[dict[str, object]]:
    """The run's sample grids, evenly chosen with the first and the last: step, images, src, width, height."""
    chosen = evenly(story.samples, max(4, _FRAMES // runs))
    return [
        {"step": step, "images": step * story.recipe.batch_size, **_frame(path)}
        for step, path in chosen
    ]


def _frame(path: Path) -> dict[str, object]:
    with Image.open(path) as image:
        return {"src": webp(image.convert("RGB")), "width": image.width, "height": image.height}


def evenly(things: Sequence[tuple[int, Path]], most: int) -> list[tuple[int, Path]]:
    """At most so many, the first and the last among them."""
    places = np.linspace(0, len(things) - 1, min(most, len(things))).round().astype(int)
    return [things[place] for place in places]
