"""Metrics of a whole split from the values of its images, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from colortrain.metrics import bootstrap
from colortrain.metrics.image_metrics import MSE_FLOOR

Rows = dict[str, np.ndarray]  # "l1.generated" -> (N,) float64, one value per image
Metrics = dict[str, dict[str, float]]  # metric -> version -> value

_RATIOS = {f"{name}_ratio": name for name in ("colourfulness", "colourfulness_absolute")}
_SOURCES = {"psnr_pooled": "mse", **_RATIOS}  # the values from which a metric is computed


def source_names(metrics: Collection[str]) -> set[str]:
    """Return the names of the values per image from which metrics are computed."""
    return {_SOURCES.get(name, name) for name in metrics}


def summarise(rows: Rows) -> Metrics:
    """Return the metrics of a whole split as metric -> version of the images -> value.

    rows: (N,) float64, the values of single images, for each metric and version, under
    keys such as "l1.grey". The versions are "generated", "grey" and "median" (the
    baselines), and "truth".
    """
    means = combine_means({name: values.mean() for name, values in rows.items()})
    return {
        metric: {version: float(x) for version, x in values.items()}
        for metric, values in means.items()
    }


def intervals(rows: Rows) -> dict[str, dict[str, list[float]]]:
    """Return the 95 % bootstrap intervals [low, high] of the metrics of `summarise`.

    The result maps metric -> version of the images -> interval. One more version,
    "generated - grey", is the difference between the generated images and the grayscale
    baseline.
    """
    means = combine_means(bootstrap.resampled_means(rows) if rows else {})
    result: dict[str, dict[str, list[float]]] = {}
    for metric, values in means.items():
        # on the same resamples
        difference = (
            {"generated - grey": values["generated"] - values["grey"]} if "grey" in values else {}
        )
        ends = {
            version: bootstrap.interval(resampled)
            for version, resampled in {**values, **difference}.items()
        }
        # without the ratios to photographs without any colour
        result[metric] = {
            version: each for version, each in ends.items() if np.isfinite(each).all()
        }
    return result


def combine_means(means: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Compute metrics from means over images: metric -> version of the images -> value.

    The keys of `means` are "metric.version", such as "l1.grey"; the values are scalars
    or arrays. In the result, `psnr_pooled` replaces the mean squared error. Ratios to
    the colourfulness of the truth are added; they are NaN where the truth has no
    colour. Metrics whose values are missing are left out.
    """
    metrics: dict[str, dict[str, np.ndarray]] = {}
    for name, values in means.items():
        metric, version = name.split(".")
        metrics.setdefault(metric, {})[version] = values
    # from the mean squared error of all images, whereas `psnr` is a mean over images
    if "mse" in metrics:
        metrics["psnr_pooled"] = {
            v: -10 * np.log10(np.maximum(x, MSE_FLOOR)) for v, x in metrics.pop("mse").items()
        }
    for ratio, name in _RATIOS.items():
        if name not in metrics:
            continue
        truth = metrics[name]["truth"]
        with np.errstate(divide="ignore", invalid="ignore"):  # photographs without any colour
            ratios = {
                v: np.where(truth > 0, x / truth, np.nan)
                for v, x in metrics[name].items()
                if v != "truth"
            }
        metrics[ratio] = ratios
    return metrics
