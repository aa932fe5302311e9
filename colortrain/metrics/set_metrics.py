"""Metrics of whole sets of images, from features that are added up batch by batch.

The same images give the same numbers in any order and on any number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from colortrain.metrics.features import FeatureRows, Moments, OutOfRangeError, fid
from colortrain.metrics.image_metrics import ImageBatch
from colortrain.metrics.transfers import HostCopy

_CELLS = 4  # per side
_MIN_IMAGES = 2  # for a covariance


@dataclass(frozen=True)
class FeatureStats:
    """Statistics of the features of one set of images.

    `moments` are the moments of the features. `rows` maps a name to feature vectors.
    """

    moments: Moments
    # for metrics that need the vectors themselves
    rows: Mapping[str, FeatureRows] = field(default_factory=dict)

    def __add__(self, other: FeatureStats) -> FeatureStats:
        """Return the statistics of the union of two sets of images."""
        return FeatureStats(
            self.moments + other.moments,
            {name: self.rows[name] + other.rows[name] for name in self.rows},
        )


class Estimate(NamedTuple):
    """The value of a metric, and perhaps its standard deviation over parts of a set."""

    value: float
    deviation: float | None = None


class SetScores(NamedTuple):
    """Metrics of sets, and their deviations: metric -> version of images -> number."""

    metrics: dict[str, dict[str, float]]
    deviations: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Extractor:
    """A feature extractor, with functions that compute metrics from its features.

    `extract` returns features of a batch of images, by name, on the images' device; the
    host does not wait for them. `collect` returns the statistics of a batch, given the
    extracted features and the index of the first image. `compare` returns metrics,
    given the statistics of the true images and of the images to score. `score` returns
    metrics that do not need the truth. `deviations` describes the parts over which
    deviations are computed, by metric, given the number of images.
    """

    name: str
    extract: Callable[[ImageBatch], Mapping[str, Tensor]]
    collect: Callable[[Mapping[str, np.ndarray], int], FeatureStats]
    compare: Callable[[FeatureStats, FeatureStats], dict[str, Estimate]]
    score: Callable[[FeatureStats], dict[str, Estimate]] = lambda stats: {}
    deviations: Callable[[int], dict[str, str]] = lambda num: {}


Key = tuple[str, str]  # extractor's name, version
FeatureKey = tuple[str, str, str]  # extractor's name, version, name of features
Stats = dict[Key, FeatureStats | None]  # None: features are not finite or too large


class SetMetrics:
    """Accumulates feature statistics batch by batch, and computes metrics from them.

    `stats` maps (extractor's name, version of the images) to statistics, or to None if
    features are not finite or too large. The versions are "generated", "grey" and
    "median" (the baselines), and "truth".
    """

    def __init__(
        self,
        extractors: Sequence[Extractor],
        stats: Stats | None = None,
    ) -> None:
        self.extractors = extractors
        self.stats: Stats = dict(stats or {})

    def update(self, versions: Mapping[str, ImageBatch], start: int) -> None:
        """Add the images of one batch; `start` is the index of its first image.

        `versions` maps "generated", "grey", "median" and "truth" to the images of the
        batch. Raises OutOfRangeError if features of the truth or of a baseline are not
        finite or not below 512 in magnitude.
        """
        self.collect(HostCopy(self.extract(versions)).wait(), start)

    def extract(self, versions: Mapping[str, ImageBatch]) -> dict[FeatureKey, Tensor]:
        """Return the features of a batch, on the images' device; for `collect`."""
        return {
            (extractor.name, version, name): features
            for extractor in self.extractors
            for version, images in versions.items()
            for name, features in extractor.extract(images).items()
        }

    def collect(self, features: Mapping[FeatureKey, np.ndarray], start: int) -> None:
        """Add the features of a batch, copied to host memory from those of `extract`.

        `start` is the index of the first image. Raises OutOfRangeError like `update`.
        """
        parts: dict[Key, dict[str, np.ndarray]] = {}
        for (extractor, version, name), values in features.items():
            parts.setdefault((extractor, version), {})[name] = values
        by_name = {extractor.name: extractor for extractor in self.extractors}
        for (name, version), values_by_name in parts.items():
            try:
                stats = by_name[name].collect(values_by_name, start)
            except OutOfRangeError:
                if version != "generated":
                    raise
                stats = None  # the network has diverged, which training reports itself
            self._add((name, version), stats)

    def _add(self, key: Key, stats: FeatureStats | None) -> None:
        before = self.stats.get(key)
        if key in self.stats:
            stats = None if before is None or stats is None else before + stats
        self.stats[key] = stats

    @property
    def left_out(self) -> dict[str, str]:
        """Map groups of metrics that were left out to what they require, as text."""
        few = any(
            stats is not None and stats.moments.num < _MIN_IMAGES for stats in self.stats.values()
        )
        return {"distances between sets": "a split of two images or more"} if few else {}

    @property
    def deviations(self) -> dict[str, str]:
        """Map metrics to the parts of a set over which their deviations are computed.

        The value is text, such as "10 splits of 300 images".
        """
        return {
            metric: parts
            for extractor in self.extractors
            for metric, parts in extractor.deviations(self._count(extractor)).items()
        }

    def _count(self, extractor: Extractor) -> int:
        truth = self.stats[extractor.name, "truth"]
        assert truth is not None  # photographs are finite
        return truth.moments.num

    def compute(self) -> SetScores:
        """Return the metrics and their deviations.

        Distances between sets are left out if the sets have only one image. Values are
        NaN, without a deviation, for a version whose features are not finite or too
        large.
        """
        metrics: dict[str, dict[str, float]] = {}
        deviations: dict[str, dict[str, float]] = {}
        for extractor in self.extractors:
            for metric, estimates in self._estimates(extractor).items():
                metrics[metric] = {version: x.value for version, x in estimates.items()}
                spread = {v: x.deviation for v, x in estimates.items() if x.deviation is not None}
                deviations |= {metric: spread} if spread else {}
        return SetScores(metrics, deviations)

    def _estimates(self, extractor: Extractor) -> dict[str, dict[str, Estimate]]:
        versions = {
            version: stats
            for (name, version), stats in self.stats.items()
            if name == extractor.name
        }
        truth, metrics = versions["truth"], dict[str, dict[str, Estimate]]()
        assert truth is not None  # photographs are finite
        for version, stats in versions.items():
            if stats is not None:
                comparable = version != "truth" and stats.moments.num >= _MIN_IMAGES
                values = extractor.score(stats) | (
                    extractor.compare(truth, stats) if comparable else {}
                )
                for metric, estimate in values.items():
                    metrics.setdefault(metric, {})[version] = _rounded(estimate)
        not_finite = {v: Estimate(math.nan) for v, stats in versions.items() if stats is None}
        return {metric: values | not_finite for metric, values in metrics.items()}


def _rounded(estimate: Estimate) -> Estimate:
    value, deviation = estimate
    return Estimate(
        round_to_nine_digits(value),
        None if deviation is None else round_to_nine_digits(deviation),
    )


def round_to_nine_digits(value: float) -> float:
    """Return a value rounded to nine significant digits."""
    # the digits after these depend on the number of threads that LAPACK uses
    return float(f"{value:.9g}")


def colour_fields(lab: Tensor) -> Tensor:
    """Return features that describe the colours in each part of an image, (B, 80).

    lab: (B, 3, H, W) in CIELAB units. In each cell of a 4 x 4 grid, the features are
    the means of L, a and b and the standard deviations of a and b.
    """
    wide = lab.double()
    means, squares = (adaptive_avg_pool2d(values, _CELLS) for values in (wide, wide.square()))
    std = (squares - means.square())[:, 1:].clamp(min=0).sqrt()
    return torch.cat([means.flatten(1), std.flatten(1)], dim=1)


# A Fréchet distance for which no weights are needed. It is not FID and not comparable
# with it: it depends on which colours are where and how they vary with the lightness,
# but not on shapes or textures.
LAB_FIELDS = Extractor(
    "lab_fields",
    lambda images: {"fields": colour_fields(images.lab)},
    lambda features, start: FeatureStats(Moments.of(features["fields"])),
    lambda truth, stats: {"frechet_lab": Estimate(fid(truth.moments, stats.moments))},
)
