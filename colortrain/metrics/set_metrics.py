"""Metrics of whole sets of pictures: what an extractor sees of each version, streamed, merged exactly, and compared.

A version is "generated", "grey", "median" or "truth". The same pictures give the same numbers in any order and from any
number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from colortrain.metrics.features import Moments, OutOfRangeError, Rows, fid
from colortrain.metrics.image_metrics import Pictures

_CELLS = 4
_LEAST = 2  # pictures that have a covariance


@dataclass(frozen=True)
class FeatureStats:
    """What was seen of a version: moments of its features, and vectors one by one where a metric needs them."""

    moments: Moments
    rows: Mapping[str, Rows] = field(default_factory=dict)

    def __add__(self, other: FeatureStats) -> FeatureStats:
        """Both sets together."""
        return FeatureStats(
            self.moments + other.moments,
            {name: self.rows[name] + other.rows[name] for name in self.rows},
        )


@dataclass(frozen=True)
class Extractor:
    """A way to see sets of pictures. `look`: a batch and the number of its first picture to what is seen; `compare`:
    the truth and a version to metrics; `alone`: a version to metrics that need no truth."""

    name: str
    look: Callable[[Pictures, int], FeatureStats]
    compare: Callable[[FeatureStats, FeatureStats], dict[str, float]]
    alone: Callable[[FeatureStats], dict[str, float]] = lambda seen: {}


class SetMetrics:
    """Everything that some eyes have seen so far of each version; None where its pictures are no numbers any more."""

    def __init__(self, extractors: Sequence[Extractor]) -> None:
        self.extractors = extractors
        self.seen: dict[tuple[str, str], FeatureStats | None] = {}

    def add(self, versions: Mapping[str, Pictures], start: int) -> None:
        """Look at one batch in every version; `start` is the number of its first picture."""
        for extractor in self.extractors:
            for version, pictures in versions.items():
                try:
                    seen = extractor.look(pictures, start)
                except OutOfRangeError:
                    if version != "generated":
                        raise
                    seen = None  # the network has diverged: whoever trains it is to hear that from its losses
                self._join((extractor.name, version), seen)

    def _join(self, key: tuple[str, str], seen: FeatureStats | None) -> None:
        before = self.seen.get(key)
        if key in self.seen:
            seen = None if before is None or seen is None else before + seen
        self.seen[key] = seen

    def join(self, parts: Iterable[Mapping[tuple[str, str], FeatureStats | None]]) -> SetMetrics:
        """The album of what several processes saw."""
        together = SetMetrics(self.extractors)
        for part in parts:
            for key, seen in part.items():
                together._join(key, seen)
        return together

    @property
    def left_out(self) -> dict[str, str]:
        """What `metrics` cannot say of so few pictures, and what it would take."""
        few = any(seen is not None and seen.moments.num < _LEAST for seen in self.seen.values())
        return {"distances between sets": "a split of two pictures or more"} if few else {}

    def metrics(self) -> dict[str, dict[str, float]]:
        """Metric -> version -> value: no distances of a set of one picture, NaN for a version without numbers."""
        return {
            metric: values
            for extractor in self.extractors
            for metric, values in self._metrics_of(extractor).items()
        }

    def _metrics_of(self, extractor: Extractor) -> dict[str, dict[str, float]]:
        versions = {
            version: seen for (name, version), seen in self.seen.items() if name == extractor.name
        }
        truth, found = versions["truth"], dict[str, dict[str, float]]()
        assert truth is not None  # photographs are numbers
        for version, seen in versions.items():
            if seen is not None:
                compared = version != "truth" and seen.moments.num >= _LEAST
                values = extractor.alone(seen) | (
                    extractor.compare(truth, seen) if compared else {}
                )
                for metric, value in values.items():
                    found.setdefault(metric, {})[version] = steady(value)
        spoiled = {version: math.nan for version, seen in versions.items() if seen is None}
        return {metric: values | spoiled for metric, values in found.items()}


def steady(value: float) -> float:
    """Nine digits of it: further ones follow the number of threads that LAPACK takes."""
    return float(f"{value:.9g}")


def colour_fields(lab: Tensor) -> Tensor:
    """(B, 3, H, W) CIELAB to (B, 80): mean L, a and b, and spread of a and b, in each cell of a 4 x 4 grid."""
    wide = lab.double()
    means, squares = (adaptive_avg_pool2d(values, _CELLS) for values in (wide, wide.square()))
    spread = (squares - means.square())[:, 1:].clamp(min=0).sqrt()
    return torch.cat([means.flatten(1), spread.flatten(1)], dim=1)


def _fields(pictures: Pictures, start: int) -> FeatureStats:
    return FeatureStats(Moments.of(colour_fields(pictures.lab).cpu().numpy()))


# Needs no weights: a Fréchet distance for where Inception's are not at hand. Not FID, and not comparable with any: it
# sees which colours lie where, and how they go with the lightness there, but no shapes and no textures.
LAB_FIELDS = Extractor(
    "lab_fields", _fields, lambda truth, seen: {"frechet_lab": fid(truth.moments, seen.moments)}
)
