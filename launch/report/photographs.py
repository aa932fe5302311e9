"""The report's photographs: held-out images that a run colorizes, and their ranking.

Unlike the rest of the report, they require the shards and a checkpoint of the run.
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
from colortrain.metrics.image_metrics import image_versions, per_image
from colortrain.runs.checkpoint import load_generator
from colortrain.visualize import to_grayscale
from launch.evaluate import open_split
from launch.report.embedded_images import webp
from shards.color import gamut_mapped_rgb, lab_to_rgb
from shards.read.cache import Cache

_BATCH = 16
_MAX_SIDE = 256  # pixels of an image in the page
_BIN_WIDTH = 2  # CIELAB units of a bin of the histograms
_MAX_AB = 110  # the histograms cover a and b in [-110, 110]


@dataclass(frozen=True)
class ScoredSamples:
    """Photographs of a split, the images that a run generated from them, and metrics.

    numbers: (N,), the photographs' numbers in the split; truth, generated: (N, 3, H, W)
    float32 in CIELAB units; metrics: (N,) arrays by name, such as "l1.generated".
    """

    numbers: np.ndarray
    truth: np.ndarray
    generated: np.ndarray
    metrics: dict[str, np.ndarray]

    @property
    def l1_improvement(self) -> np.ndarray:
        """L1 of the grayscale image minus L1 of the generated image, (N,).

        Positive where the generated image is better.
        """
        return self.metrics["l1.grey"] - self.metrics["l1.generated"]


def score_samples(run: Path, shards: str, most: int, cache: Cache | None = None) -> ScoredSamples:
    """Colorize and score evenly spaced photographs of the held-out split of `shards`.

    run: the run whose newest checkpoint is used; most: maximum number of photographs.
    Raises UserError if the samples do not have the image size of the run.
    """
    generator, recipe, _ = load_generator(run)
    split = open_split(shards, None, recipe, cache)
    numbers = np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).round().astype(int))
    generated, truths, rows = [], [], []
    for part in np.array_split(numbers, -(-len(numbers) // _BATCH)):
        truth = stored_to_lab(torch.from_numpy(split.read(part)))
        generated.append(generate(generator, recipe.codec, truth, dropout=recipe.test_dropout))
        truths.append(truth)
        rows.append(per_image(image_versions(generated[-1], truth), metrics="core"))
    metrics = {name: torch.cat([row[name] for row in rows]).numpy() for name in rows[0]}
    return ScoredSamples(numbers, torch.cat(truths).numpy(), torch.cat(generated).numpy(), metrics)


def photo_section(samples: ScoredSamples, count: int) -> dict[str, Any]:
    """Return the data of a run's section of photographs, as a dict for the page.

    count: how many evenly spaced, best and worst photographs are shown, each.
    """
    ranked, total = np.argsort(-samples.l1_improvement, kind="stable"), len(samples.numbers)
    evenly = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
    return {
        "count": total,
        "evenly_spaced": [_photo(samples, i) for i in evenly],
        "best": [_photo(samples, i) for i in ranked[:count]],
        "worst": [_photo(samples, i) for i in ranked[::-1][:count]],
        "histograms": histograms(samples),
        "num_better": int((samples.l1_improvement > 0).sum()),
    }


def _photo(samples: ScoredSamples, place: int) -> dict[str, Any]:
    truth, metrics = samples.truth[place], samples.metrics
    return {
        "number": int(samples.numbers[place]),
        "size": truth.shape[-1],
        "grey": _data_uri(to_grayscale(truth)),
        "generated": _data_uri(samples.generated[place]),
        "truth": _data_uri(truth),
        "l1": float(metrics["l1.generated"][place]),
        "l1_grey": float(metrics["l1.grey"][place]),
        "colourfulness": float(metrics["colourfulness.generated"][place]),
        "colourfulness_truth": float(metrics["colourfulness.truth"][place]),
    }


def _data_uri(lab: np.ndarray) -> str:
    image = Image.fromarray(gamut_mapped_rgb(lab))
    image.thumbnail((_MAX_SIDE, _MAX_SIDE))
    return webp(image)


def histograms(samples: ScoredSamples) -> list[dict[str, Any]]:
    """Return 2-D histograms of ab: of the photographs and of the generated images.

    Each is {"name", "src", "used"}: "src" is an image as a data URI, with a to the
    right and b upwards; "used" is the fraction of bins that are not empty.
    """
    counts = {
        "the photographs": _count_ab(samples.truth),
        "generated": _count_ab(samples.generated),
    }
    # The opacity grows with the logarithm of the count, on one scale for both.
    most = np.log1p(max(int(count.max()) for count in counts.values()))
    return [
        {"name": name, "src": _draw(np.log1p(count) / most), "used": float((count > 0).mean())}
        for name, count in counts.items()
    ]


def _count_ab(lab: np.ndarray) -> np.ndarray:
    """Return the histogram of ab as pixels per bin, (bins of b, bins of a).

    lab: (N, 3, H, W) in CIELAB units.
    """
    bins = 2 * _MAX_AB // _BIN_WIDTH + 1
    # Values outside the histogram count in its outermost bins.
    a, b = (
        np.clip(np.floor(lab[:, i] / _BIN_WIDTH + 0.5).astype(int) + bins // 2, 0, bins - 1).ravel()
        for i in (1, 2)
    )
    return np.bincount(b * bins + a, minlength=bins * bins).reshape(bins, bins)


def _draw(density: np.ndarray) -> str:
    """Draw a histogram of ab and return the image as a data URI.

    density: (bins of b, bins of a) in [0, 1].
    """
    bins = len(density)
    axis = (np.arange(bins, dtype=np.float32) - bins // 2) * _BIN_WIDTH
    a, b = np.meshgrid(axis, axis)
    # Each bin has the colour of its ab at L = 62.
    rgb = lab_to_rgb(np.stack([np.full_like(a, 62), a, b]))
    alpha = np.where(density > 0, 80 + 175 * density, 0).astype(np.uint8)
    return webp(np.dstack([rgb, alpha])[::-1].copy(), lossless=True)
