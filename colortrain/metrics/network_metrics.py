"""Metrics from features of pretrained networks.

Of whole sets of images: FID, KID and the inception score with Inception, and a Fréchet
distance that is not FID with SqueezeNet. Of an image and the true one: LPIPS (Zhang et
al. 2018) with VGG-16 or SqueezeNet, and the VGG distance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from colortrain.metrics.features import (
    INCEPTION_SPLITS,
    KID_SUBSET_SIZE,
    KID_SUBSETS,
    FeatureRows,
    Moments,
    fid,
    fid_diagonal,
    inception_score,
    kid,
)
from colortrain.metrics.image_metrics import ImageBatch
from colortrain.metrics.set_metrics import Estimate, Extractor, FeatureStats
from colortrain.models.squeezenet import SqueezeNetFeatures
from colortrain.models.vgg16 import VGG16Features, feature_distance

Versions = Mapping[str, ImageBatch]
# returns metrics of single images, such as "lpips.generated": (B,)
PairMetrics = Callable[[Versions], dict[str, Tensor]]

_HEADS = {"vgg": 5, "squeeze": 7}  # number of LPIPS's linear layers

_LOGITS, _POOL = "logits", "pool"
# Pixels, height and width to which images are resized for SqueezeNet's features. Its
# features of 64 px photographs separate classes as well as at 224 px, at which it was
# trained (31 % of 1,000 photographs of 200 classes by the nearest class mean, without
# resizing 21 %), in a third of the time. Without resizing, features of small images are
# also so large that `Moments` may reject them.
SQUEEZENET_SIZE = 128


def inception_extractor(
    network: Callable[[Tensor], tuple[Tensor, Tensor]], splits: int = INCEPTION_SPLITS
) -> Extractor:
    """Return the extractor for FID, its diagonal variant, KID and the inception score.

    `network` maps RGB images (B, 3, H, W), whole numbers in 0..255, to features (B, D)
    and logits (B, classes). For the inception score, the images are divided into
    `splits` parts, or into parts of one image if there are fewer images.
    """

    @torch.no_grad()
    def extract(images: ImageBatch) -> dict[str, Tensor]:
        # rounded to 8 bits, as if the images had been read from files
        features, logits = network((255 * images.rgb).round())
        return {_POOL: features, _LOGITS: logits}

    def collect(features: Mapping[str, np.ndarray], start: int) -> FeatureStats:
        # KID and the inception score need those of every image: 12 KB per image and
        # version
        rows = {name: FeatureRows(((start, values),)) for name, values in features.items()}
        return FeatureStats(Moments.of(features[_POOL]), rows)

    def compare(truth: FeatureStats, stats: FeatureStats) -> dict[str, Estimate]:
        distances = {
            distance.__name__: Estimate(distance(truth.moments, stats.moments))
            for distance in (fid, fid_diagonal)
        }
        value, spread = kid(truth.rows[_POOL].array(), stats.rows[_POOL].array())
        has_subsets = stats.moments.num > KID_SUBSET_SIZE
        return {**distances, "kid": Estimate(value, spread if has_subsets else None)}

    def score(stats: FeatureStats) -> dict[str, Estimate]:
        logits = stats.rows[_LOGITS].array()
        return {"inception_score": Estimate(*inception_score(logits, min(splits, len(logits))))}

    def deviations(num: int) -> dict[str, str]:
        return {"inception_score": describe_splits(num, min(splits, num))} | (
            {"kid": f"{KID_SUBSETS} random subsets of {KID_SUBSET_SIZE:,} images"}
            if num > KID_SUBSET_SIZE
            else {}
        )

    return Extractor("inception", extract, collect, compare, score, deviations)


def describe_splits(num: int, splits: int) -> str:
    """Return a phrase about the splits of a set of `num` images.

    For instance "10 splits of 300 images".
    """
    sizes = sorted({num // splits, -(-num // splits)})
    each = " or ".join(f"{size:,}" for size in sizes)
    count = f"{splits:,} split{'s' if splits > 1 else ''}"
    return f"{count} of {each} image{'s' if sizes[-1] > 1 else ''}"


def squeezenet_extractor(network: Callable[[Tensor], list[Tensor]]) -> Extractor:
    """Return the extractor for the Fréchet distance of SqueezeNet's features.

    `network` maps RGB images (B, 3, H, W) in [0, 1] to feature maps. The features are
    the means over the pixels of the last one. Images are first resized to 128 px,
    bilinearly, with antialiasing if they become smaller. It is not FID and not
    comparable with it.
    """

    @torch.no_grad()
    def extract(images: ImageBatch) -> dict[str, Tensor]:
        size = (SQUEEZENET_SIZE, SQUEEZENET_SIZE)
        resized = F.interpolate(
            images.rgb, size, mode="bilinear", align_corners=False, antialias=True
        )
        return {_POOL: network(resized)[-1].mean(dim=(2, 3))}

    return Extractor(
        "squeezenet",
        extract,
        lambda features, start: FeatureStats(Moments.of(features[_POOL])),
        lambda truth, stats: {"frechet_squeezenet": Estimate(fid(truth.moments, stats.moments))},
    )


def vgg_pair_metrics(network: VGG16Features, heads: Sequence[Tensor]) -> PairMetrics:
    """Return a function that compares images with the true ones by VGG-16's features.

    For a batch it returns the VGG distance (Drouilhet and L'Herminé, section 12.1) and
    LPIPS of the generated images and of each baseline, (B,) each. `heads` are the
    weights of LPIPS's linear layers, (1, C, 1, 1) per block of VGG-16.
    """

    def compare(maps: list[Tensor], truth: list[Tensor]) -> dict[str, Tensor]:
        return {
            "vgg_distance": feature_distance(maps[:3], truth[:3]),
            "lpips": lpips_distance(maps, truth, heads),
        }

    return _pair_metrics(network, compare)


def squeezenet_pair_metrics(network: SqueezeNetFeatures, heads: Sequence[Tensor]) -> PairMetrics:
    """Return a function that compares images with the true ones by LPIPS-squeeze.

    For a batch it returns "lpips_squeeze" of the generated images and of each baseline,
    (B,) each. `heads` are the weights of LPIPS's linear layers, (1, C, 1, 1) per
    feature map. Images are not resized, and must be at least 17 px.
    """

    def compare(maps: list[Tensor], truth: list[Tensor]) -> dict[str, Tensor]:
        return {"lpips_squeeze": lpips_distance(maps, truth, heads)}

    return _pair_metrics(network, compare)


def _pair_metrics(
    network: Callable[[Tensor], list[Tensor]],
    compare: Callable[[list[Tensor], list[Tensor]], dict[str, Tensor]],
) -> PairMetrics:
    @torch.no_grad()
    def pair_metrics(images: Versions) -> dict[str, Tensor]:
        truth = network(images["truth"].rgb)
        return {
            f"{metric}.{version}": values
            for version in images
            if version != "truth"
            for metric, values in compare(network(images[version].rgb), truth).items()
        }

    return pair_metrics


def lpips_distance(
    generated: Sequence[Tensor], truth: Sequence[Tensor], heads: Sequence[Tensor]
) -> Tensor:
    """Return LPIPS (B,) from the feature maps of two batches of images.

    (Zhang et al. 2018, equation 1.) generated and truth: one (B, C, H, W) per layer.
    heads: one (1, C, 1, 1) per layer.
    """
    layers = [
        F.conv2d((_unit(one) - _unit(other)).square(), head).mean(dim=(1, 2, 3))
        for one, other, head in zip(generated, truth, heads, strict=True)
    ]
    return torch.stack(layers).sum(0)


def _unit(maps: Tensor) -> Tensor:
    return maps / (maps.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()


def lpips_file(network: Literal["vgg", "squeeze"]) -> Path:
    """Return the file of LPIPS 0.1's linear layers, which is a part of torchmetrics."""
    spec = find_spec("torchmetrics")
    assert spec
    assert spec.origin
    return Path(spec.origin).parent / "functional" / "image" / "lpips_models" / f"{network}.pth"


def lpips_heads(network: Literal["vgg", "squeeze"], device: torch.device | str) -> list[Tensor]:
    """Return the weights of LPIPS 0.1's linear layers, (1, C, 1, 1) per layer."""
    file = lpips_file(network)
    tensors: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return [tensors[f"lin{layer}.model.1.weight"].to(device) for layer in range(_HEADS[network])]
