"""The report's photographs: what a run makes of the held-out split, best and worst, and where its colours lie.

Needs the shards and the run's newest checkpoint, unlike the rest of the report.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from colortrain.lab import stored_to_lab
from colortrain.metrics.evaluate import generate
from colortrain.metrics.image_metrics import per_image, versions
from colortrain.runs.checkpoint import load_generator
from colortrain.visualize import to_grayscale
from launch.evaluate import open_split
from launch.report.embedded_images import webp
from shards.color import lab_to_rgb
from shards.read.cache import Cache

_BATCH = 16
_LARGEST = 256  # pixels of a picture in the page
_UNITS = 2  # CIELAB units of a cell of the histograms
_REACH = 110


@dataclass(frozen=True)
class Looked:
    """Photographs of a split, (N, 3, H, W) CIELAB, with what the network made of them, and metrics of each."""

    numbers: np.ndarray
    truth: np.ndarray
    made: np.ndarray
    rows: dict[str, np.ndarray]

    @property
    def gain(self) -> np.ndarray:
        """By how much L1 is below that of the same picture in grey."""
        return self.rows["l1.grey"] - self.rows["l1.generated"]


def look(run: Path, shards: str, most: int, cache: Cache | None = None) -> Looked:
    """What the newest checkpoint makes of at most so many photographs of the held-out split, evenly chosen."""
    generator, recipe, _ = load_generator(run)
    split = open_split(shards, None, recipe, cache)
    numbers = np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).round().astype(int))
    made, truths, rows = [], [], []
    for part in np.array_split(numbers, -(-len(numbers) // _BATCH)):
        truth = stored_to_lab(torch.from_numpy(split.read(part)))
        made.append(generate(generator, recipe.codec, truth, dropout=recipe.test_dropout))
        truths.append(truth)
        rows.append(per_image(versions(made[-1], truth), metrics="core"))
    columns = {name: torch.cat([row[name] for row in rows]).numpy() for name in rows[0]}
    return Looked(numbers, torch.cat(truths).numpy(), torch.cat(made).numpy(), columns)


def photographs(looked: Looked, each: int) -> dict[str, Any]:
    """What the page shows of a run: `each` photographs evenly chosen, as many of the best and the worst, histograms."""
    ranked, count = np.argsort(-looked.gain, kind="stable"), len(looked.numbers)
    some = np.unique(np.linspace(0, count - 1, min(each, count)).round().astype(int))
    return {
        "count": count,
        "some": [_shown(looked, i) for i in some],
        "best": [_shown(looked, i) for i in ranked[:each]],
        "worst": [_shown(looked, i) for i in ranked[::-1][:each]],
        "histograms": histograms(looked),
        "better": int((looked.gain > 0).sum()),
    }


def _shown(looked: Looked, place: int) -> dict[str, Any]:
    truth, rows = looked.truth[place], looked.rows
    return {
        "number": int(looked.numbers[place]),
        "size": truth.shape[-1],
        "grey": _picture(to_grayscale(truth)),
        "generated": _picture(looked.made[place]),
        "truth": _picture(truth),
        "l1": float(rows["l1.generated"][place]),
        "l1_grey": float(rows["l1.grey"][place]),
        "colourful": float(rows["colourfulness.generated"][place]),
        "colourful_truth": float(rows["colourfulness.truth"][place]),
    }


def _picture(lab: np.ndarray) -> str:
    image = Image.fromarray(lab_to_rgb(lab))
    image.thumbnail((_LARGEST, _LARGEST))
    return webp(image)


def histograms(looked: Looked) -> list[dict[str, Any]]:
    """Where the colours of the truth and of the generated pictures lie: a to the right, b up, log of the counts.

    Both are drawn to one scale, each cell in its own colour at L = 62.
    """
    counts = {"the photographs": _counts(looked.truth), "generated": _counts(looked.made)}
    most = np.log1p(max(int(count.max()) for count in counts.values()))
    return [
        {"name": name, "src": _plane(np.log1p(count) / most), "used": float((count > 0).mean())}
        for name, count in counts.items()
    ]


def _counts(lab: np.ndarray) -> np.ndarray:
    """(cells of b, cells of a), a and b beyond the reach in the outermost cells."""
    cells = 2 * _REACH // _UNITS + 1
    a, b = (
        np.clip(np.floor(lab[:, i] / _UNITS + 0.5).astype(int) + cells // 2, 0, cells - 1).ravel()
        for i in (1, 2)
    )
    return np.bincount(b * cells + a, minlength=cells * cells).reshape(cells, cells)


def _plane(density: np.ndarray) -> str:
    cells = len(density)
    axis = (np.arange(cells, dtype=np.float32) - cells // 2) * _UNITS
    a, b = np.meshgrid(axis, axis)
    rgb = lab_to_rgb(np.stack([np.full_like(a, 62), a, b]))
    alpha = np.where(density > 0, 80 + 175 * density, 0).astype(np.uint8)
    return webp(np.dstack([rgb, alpha])[::-1].copy(), lossless=True)
