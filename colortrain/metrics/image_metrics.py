"""Metrics of single images; every function returns one number per image, (B,).

`lab` is (B, 3, H, W) in CIELAB units, `rgb` is (B, 3, H, W) in [0, 1]. A new metric is
added to one of four dicts:

- `PAIRED`: metrics that compare an image with the true one
- `WITH_OWN_L`: the same, with the L that the network predicted instead of the true L
- `PAIRED_SLOW`: the same as `PAIRED`, but not computed during training
- `SINGLE`: metrics that do not need the true image
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from colortrain.lab import lab_to_rgb
from colortrain.metrics.accuracy import accuracy, mae, mae_lab
from colortrain.metrics.collapse import (
    bright_pixels,
    greatest_chroma_nearby,
    percent_in_spots,
    sepia,
)
from colortrain.metrics.transfers import HostCopy

MSE_FLOOR = 1e-10  # equal images score 100 dB instead of infinity
_WINDOW = 11  # pixels: a Gaussian of sigma 1.5, truncated at 3.5 sigma
_MARGIN = _WINDOW // 2


@dataclass(frozen=True)
class ImageBatch:
    """A batch of images, (B, 3, H, W) in CIELAB units, with a conversion to RGB."""

    lab: Tensor

    @cached_property
    def rgb(self) -> Tensor:
        """The images as sRGB in [0, 1], clipped, (B, 3, H, W); computed once."""
        return lab_to_rgb(self.lab)

    @cached_property
    def chroma_nearby(self) -> Tensor:
        """The greatest chroma near each pixel, (B, H, W); computed once."""
        return greatest_chroma_nearby(self.lab)

    def with_ab(self, a: float, b: float) -> ImageBatch:
        """Return images with the same L, and with the colour (a, b) in all pixels."""
        L = self.lab[:, :1]
        # not torch.tensor, which would make the CPU wait for a GPU
        return ImageBatch(torch.cat([L, torch.full_like(L, a), torch.full_like(L, b)], dim=1))


def l1(lab: Tensor, truth: Tensor) -> Tensor:
    """Return the mean absolute difference of a and b, divided by 110: (B,).

    (Nampouri et al., section 6.)
    """
    # the same divisor for every codec, so that values are comparable
    return (lab[:, 1:] - truth[:, 1:]).abs().mean(dim=(1, 2, 3)) / 110


def mse(rgb: Tensor, truth: Tensor) -> Tensor:
    """Return the mean squared difference of RGB images in [0, 1], per image: (B,)."""
    return (rgb - truth).square().mean(dim=(1, 2, 3))


def psnr(mean_squared: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB, (B,).

    mean_squared: (B,), mean squared errors of RGB in [0, 1]. The result is at most 100
    dB.
    """
    return -10 * torch.log10(mean_squared.clamp(min=MSE_FLOOR))


def rmse(rgb: Tensor, truth: Tensor) -> Tensor:
    """Return the root mean squared error of RGB images in [0, 1], per image: (B,).

    rgb and truth: (B, 3, H, W). An image's PSNR is -20 log10 of it. Times 255, it is in
    8-bit levels.
    """
    return mse(rgb, truth).sqrt()


def ssim(rgb: Tensor, truth: Tensor) -> Tensor:
    """Return the structural similarity (B,) (Wang et al. 2004).

    rgb and truth: (B, 3, H, W) in [0, 1]. The window is a Gaussian of sigma 1.5,
    truncated to 11 pixels. Raises ValueError for images smaller than 6 px.
    """
    # Imported here, because it imports matplotlib, which needs a folder for its cache.
    from torchmetrics.functional.image import structural_similarity_index_measure

    height, width = rgb.shape[-2:]
    if min(height, width) <= _MARGIN:
        raise ValueError(f"SSIM requires images of at least {_MARGIN + 1} px, got {height}x{width}")
    _, local = structural_similarity_index_measure(
        rgb, truth, data_range=1.0, reduction="none", return_full_image=True
    )
    # As in the paper and in scikit-image, only whole windows count. Smaller images are
    # reflected at the border, and all their pixels count.
    if min(height, width) >= _WINDOW:
        local = local[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return local.mean(dim=(1, 2, 3))


def colourfulness(rgb: Tensor) -> Tensor:
    """Return Hasler and Süsstrunk's colourfulness M3, (B,).

    rgb: (B, 3, H, W) in [0, 1]. M3 is 0 for grayscale images, about 15 for slightly
    colourful and 109 for extremely colourful ones (Hasler and Süsstrunk 2003, equation
    15, section 7).
    """
    # M3 is defined for 0..255
    red, green, blue = (255 * rgb).flatten(2).unbind(1)
    return _colourfulness(torch.stack([red - green, (red + green) / 2 - blue]))


def colourfulness_absolute(rgb: Tensor) -> Tensor:
    """Return the colourfulness that colorization benchmarks use: (B,).

    rgb: (B, 3, H, W) in [0, 1]. It is M3 of Hasler and Süsstrunk, computed from |R - G|
    and |(R + G) / 2 - B| instead of the differences with their signs.
    """
    red, green, blue = (255 * rgb).flatten(2).unbind(1)
    return _colourfulness(torch.stack([red - green, (red + green) / 2 - blue]).abs())


def _colourfulness(opponent: Tensor) -> Tensor:
    std = opponent.std(dim=-1, correction=0).square().sum(0).sqrt()
    return std + 0.3 * opponent.mean(dim=-1).square().sum(0).sqrt()


# The generated image has the true L in all of these except `WITH_OWN_L`.
PAIRED: dict[str, Callable[[ImageBatch, ImageBatch], Tensor]] = {
    "l1": lambda images, truth: l1(images.lab, truth.lab),
    "mse": lambda images, truth: mse(images.rgb, truth.rgb),
    "psnr": lambda images, truth: psnr(mse(images.rgb, truth.rgb)),
    "rmse": lambda images, truth: rmse(images.rgb, truth.rgb),
    "bright_spots": lambda images, truth: bright_pixels(images.lab, truth.chroma_nearby),
    "accuracy_ab_2": lambda images, truth: accuracy(images.lab, truth.lab, 2, slice(1, 3)),
    "accuracy_ab_5": lambda images, truth: accuracy(images.lab, truth.lab, 5, slice(1, 3)),
}
WITH_OWN_L: dict[str, Callable[[ImageBatch, ImageBatch], Tensor]] = {
    "accuracy_2": lambda images, truth: accuracy(images.lab, truth.lab, 2),
    "accuracy_5": lambda images, truth: accuracy(images.lab, truth.lab, 5),
    "mae": lambda images, truth: mae(images.lab, truth.lab),
    "mae_lab": lambda images, truth: mae_lab(images.lab, truth.lab),
}
SINGLE: dict[str, Callable[[ImageBatch], Tensor]] = {
    "colourfulness": lambda images: colourfulness(images.rgb),
    "colourfulness_absolute": lambda images: colourfulness_absolute(images.rgb),
    "sepia": lambda images: sepia(images.lab),
}
# SSIM takes 41 ms per 256 px image on one core; all other metrics together take 9 ms
PAIRED_SLOW: dict[str, Callable[[ImageBatch, ImageBatch], Tensor]] = {
    "ssim": lambda images, truth: ssim(images.rgb, truth.rgb),
}

# Metrics that are maps (B, H, W) on the device; from the maps, these functions compute
# one number per image on the host.
HOST_PARTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"bright_spots": percent_in_spots}

Depth = Literal["core", "all"]  # without or with the slow metrics


def image_versions(
    generated: Tensor, truth: Tensor, constant: tuple[float, float] | None = None
) -> dict[str, ImageBatch]:
    """Return the images to score: the generated and true ones and the baselines.

    The keys are "generated", "grey" (a = b = 0), "median" (the colour `constant`, if
    given) and "truth". generated and truth: (B, 3, H, W) in CIELAB units, with the true
    L.
    """
    true = ImageBatch(truth.float())
    result = {"generated": ImageBatch(generated.float()), "grey": true.with_ab(0, 0)}
    if constant is not None:
        result["median"] = true.with_ab(*constant)
    return {**result, "truth": true}


def per_image(
    images: Mapping[str, ImageBatch], *, predicted: Tensor | None = None, metrics: Depth = "all"
) -> dict[str, Tensor]:
    """Return all metrics for each image, in each version: "metric.version" -> (B,).

    A key is, for instance, "l1.grey"; the tensors are on the CPU. `images` are from
    `image_versions`. `predicted` are the generated images with the L that the network
    predicted, (B, 3, H, W) in CIELAB units. If it is None, all metrics are computed
    with the true L.
    """
    on_device = metrics_on_device(images, tuple(images), predicted=predicted, metrics=metrics)
    rows = values_per_image(HostCopy(on_device).wait())
    return {name: torch.from_numpy(values) for name, values in rows.items()}


def metrics_on_device(
    images: Mapping[str, ImageBatch],
    versions: Collection[str],
    *,
    predicted: Tensor | None,
    metrics: Depth,
    only: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Return metrics of some versions as tensors on the images' device.

    They are (B,), or maps (B, H, W) for the metrics in `HOST_PARTS`; `values_per_image`
    completes those. The host does not wait for the device. `versions` are the keys of
    `images` to score. If `only` is given, the other metrics are left out. The other
    arguments are described in `per_image`.
    """
    true = images["truth"]
    own = images if predicted is None else {**images, "generated": ImageBatch(predicted.float())}
    paired = PAIRED | (PAIRED_SLOW if metrics == "all" else {})
    others = [version for version in versions if version != "truth"]
    rows = {
        f"{name}.{version}": metric(batches[version], true)
        for group, batches in ((paired, images), (WITH_OWN_L, own))
        for name, metric in group.items()
        if only is None or name in only
        for version in others
    }
    return rows | {
        f"{name}.{version}": single(images[version])
        for name, single in SINGLE.items()
        if only is None or name in only
        for version in versions
    }


def values_per_image(copies: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return metrics as one number per image, (B,), from copies in host memory.

    copies: of the result of `metrics_on_device`.
    """
    return {
        name: HOST_PARTS.get(name.partition(".")[0], np.asarray)(copy)
        for name, copy in copies.items()
    }
