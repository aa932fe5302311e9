"""The metric registry: name, label, direction, decimals, requirements of each metric.

To add a metric, add a `Metric` here and the function that computes it to
`image_metrics` (one value per image) or `set_metrics` (one value per set of images).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

Scores = dict[str, Any]  # what `evaluate.score_split` returns, and evaluation.json holds

# Which values are better: lower, higher, or closer to a target (the photographs' own
# value, or 1).
Direction = Literal["lower", "higher", "truth", "one"]
# What computing it requires: nothing special, too much time for validation during
# training, or the weights of the network of that name ("classifier": the one that
# `colortrain reproduce` trains).
Needs = Literal["", "time", "inception", "vgg16", "squeezenet", "classifier"]

_SYMBOLS = {"lower": "↓", "higher": "↑", "truth": "→ truth", "one": "→ 1"}


@dataclass(frozen=True)
class Metric:
    """A metric: its name, which values are better, how it is printed, what it needs."""

    name: str  # the key in scores, journals and evaluation.json
    label: str
    direction: Direction | None = None
    decimals: int = 4
    needs: Needs = ""

    @property
    def symbol(self) -> str:
        """The arrow that shows which values are better (↓, ↑, → truth, → 1), or ""."""
        return _SYMBOLS[self.direction] if self.direction else ""

    def text(self, value: float | None, deviation: float | None = None) -> str:
        """Return a value as text, with the metric's number of decimals; "" for None.

        With a standard deviation, the text is, for instance, "4.312 ± 1.837".
        """
        if value is None:
            return ""
        spread = "" if deviation is None else f" ± {deviation:.{self.decimals}f}"
        return f"{value:.{self.decimals}f}{spread}"

    def distance(self, value: float, truth: float | None = None) -> float:
        """Return how far a value is from the best possible one; lower is better.

        `truth` is the metric's value for the true photographs. If it is required but
        None, the result is NaN.
        """
        if self.direction in ("lower", None):
            return value
        if self.direction == "higher":
            return -value
        target = 1.0 if self.direction == "one" else truth
        return math.nan if target is None else abs(value - target)


_ALL = (
    Metric("l1", "L1 of ab / 110", "lower", 4),
    Metric("psnr", "PSNR, mean over images, dB", "higher", 2),
    Metric("psnr_pooled", "PSNR, pooled, dB", "higher", 2),
    Metric("rmse", "RMSE of RGB in [0, 1]", "lower", 4),
    Metric("ssim", "SSIM", "higher", 4, "time"),
    Metric("accuracy_2", "accuracy at 2 %, Lab, %", "higher", 1),
    Metric("accuracy_5", "accuracy at 5 %, Lab, %", "higher", 1),
    Metric("accuracy_ab_2", "accuracy at 2 %, ab only, %", "higher", 1),
    Metric("accuracy_ab_5", "accuracy at 5 %, ab only, %", "higher", 1),
    Metric("mae", "MAE x 100, Lab", "lower", 2),
    Metric("mae_lab", "MAE in Lab units", "lower", 2),
    Metric("colourfulness", "colourfulness (M3)", "truth", 2),
    Metric("colourfulness_ratio", "colourfulness / truth", "one", 3),
    Metric("colourfulness_absolute", "colourfulness, absolute variant", "truth", 2),
    Metric("colourfulness_absolute_ratio", "absolute variant / truth", "one", 3),
    Metric("fid", "FID", "lower", 2, "inception"),
    Metric("fid_diagonal", "FID variant of Arun (not FID)", "lower", 2, "inception"),
    Metric("kid", "KID", "lower", 5, "inception"),
    Metric("inception_score", "inception score", "higher", 3, "inception"),
    Metric("lpips", "LPIPS (VGG-16)", "lower", 4, "vgg16"),
    Metric("lpips_squeeze", "LPIPS (SqueezeNet)", "lower", 4, "squeezenet"),
    Metric("vgg_distance", "VGG distance", "lower", 4, "vgg16"),
    Metric("frechet_lab", "Fréchet distance of 4 x 4 Lab fields (not FID)", "lower", 1),
    Metric(
        "frechet_squeezenet", "Fréchet distance, SqueezeNet (not FID)", "lower", 1, "squeezenet"
    ),
    Metric(
        "frechet_classifier", "Fréchet distance, classifier (not FID)", "lower", 3, "classifier"
    ),
    Metric("bright_spots", "bright spots, % of pixels", "lower", 3),
    Metric("sepia", "sepia (one hue = 1)", "truth", 3),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}  # in the order of tables


def metric_named(name: str) -> Metric:
    """Return the metric called `name`.

    For an unknown name, the result is a metric with that label and without a direction.
    """
    # a score file that another version of colortrain wrote may contain unknown names
    return METRICS.get(name) or Metric(name, name)


def ordered(names: Collection[str]) -> list[Metric]:
    """Return the metrics whose names are in `names`, in the order used in tables."""
    return [metric for metric in METRICS.values() if metric.name in names]
