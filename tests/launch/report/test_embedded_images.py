"""Images inside the report's page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from launch.report.embedded_images import evenly_spaced, webp


def test_a_lossless_data_uri_contains_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    head, _, data = webp(image, lossless=True).partition(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as decoded:
        assert np.array_equal(np.asarray(decoded), image)


def test_evenly_spaced_items_include_both_ends() -> None:
    items = [(step, Path(f"{step}.png")) for step in range(10)]
    assert [step for step, _ in evenly_spaced(items, 4)] == [0, 3, 6, 9]
    assert evenly_spaced(items, 20) == items
    assert evenly_spaced([], 4) == []
