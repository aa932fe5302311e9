"""Metrics that need pretrained networks.

Inception is used for FID, KID and the inception score (IS), and VGG-16 for the VGG
distance and LPIPS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from colortrain.metrics.features import (
    FeatureRows,
    Moments,
    fid,
    fid_diagonal,
    inception_score,
    kid,
)
from colortrain.metrics.image_metrics import ImageBatch
from colortrain.metrics.set_metrics import LAB_FIELDS, Extractor, FeatureStats
from colortrain.models.inception import SIZE, load_inception
from colortrain.models.pretrained import INCEPTION, VGG16, PublishedWeights
from colortrain.models.vgg16 import DEPTH_LPIPS, VGG16Features, feature_distance, load_vgg16
from shards.files import sha256_of

Versions = Mapping[str, ImageBatch]
PairMetrics = Callable[[Versions], dict[str, Tensor]]

_LOGITS, _POOL = "logits", "pool"


@dataclass(frozen=True)
class FeatureExtractors:
    """The pretrained networks for `evaluate.score_split`, and their descriptions.

    `set_extractors` compute metrics of whole sets of images. `pair_metrics` returns
    metrics of single images, such as "lpips.generated": (B,). `facts` describes, for
    each metric, the network, its weights and the resizing of images. `left_out` maps
    the missing metrics to the option that enables them.
    """

    set_extractors: tuple[Extractor, ...] = (LAB_FIELDS,)
    pair_metrics: PairMetrics | None = None
    facts: Mapping[str, dict[str, str]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def load_extractors(
    inception: str | None = None, vgg16: str | None = None, device: torch.device | str = "cpu"
) -> FeatureExtractors:
    """Load the pretrained networks that metrics require, on `device`.

    `inception` and `vgg16` say which weights to use: "imagenet" (downloaded once), the
    path of a file, or "random" (always the same weights). With None, the published file
    is used if it is in torch's cache; otherwise the metrics that need it are left out.
    Raises UserError if weights cannot be loaded.
    """
    inception, vgg16 = inception or _if_cached(INCEPTION), vgg16 or _if_cached(VGG16)
    extractors, pairs = [LAB_FIELDS], None
    facts: dict[str, dict[str, str]] = {}
    left_out: dict[str, str] = {}
    if inception:
        extractors.append(
            inception_extractor(load_inception(inception, "leave out --inception").to(device))
        )
        resize = f"{SIZE} px, bilinear as TensorFlow 1's"
        described = _describe("Inception-v3 of 2015-12-05", inception, INCEPTION, resize)
        facts |= dict.fromkeys(("fid", "fid_diagonal", "kid", "inception_score"), described)
    else:
        left_out["fid, fid_diagonal, kid, inception_score"] = _how("--inception", INCEPTION)
    if vgg16:
        lpips = _lpips_weights()
        network = load_vgg16(vgg16, "leave out --vgg16", DEPTH_LPIPS).to(device)
        pairs = vgg_pair_metrics(network, [weight.to(device) for weight in lpips])
        described = _describe("VGG-16", vgg16, VGG16, "none")
        facts |= {
            "vgg_distance": described,
            "lpips": described | {"extractor": "VGG-16, LPIPS 0.1's linear layers"},
        }
    else:
        left_out["vgg_distance, lpips"] = _how("--vgg16", VGG16)
    return FeatureExtractors(tuple(extractors), pairs, facts, left_out)


def _if_cached(published: PublishedWeights) -> str | None:
    return "imagenet" if published.file.is_file() else None


def _how(option: str, published: PublishedWeights) -> str:
    return f"{option} FILE or {option} imagenet ({published.url})"


def _describe(
    extractor: str, weights: str, published: PublishedWeights, resize: str
) -> dict[str, str]:
    if weights == "random":
        source = "random: comparable with nothing published"
    else:
        path = published.file if weights == "imagenet" else Path(weights)
        source = f"sha256 {sha256_of(path)[:16]}"
    return {"extractor": extractor, "weights": source, "resize": resize}


def inception_extractor(
    network: Callable[[Tensor], tuple[Tensor, Tensor]], splits: int = 10
) -> Extractor:
    """Return the extractor for FID, its diagonal variant, KID and the inception score.

    `network` maps RGB images (B, 3, H, W), whole numbers in 0..255, to features (B, D)
    and logits (B, classes). For the inception score, the images are divided into
    `splits` parts.
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

    def compare(truth: FeatureStats, stats: FeatureStats) -> dict[str, float]:
        distances = {
            distance.__name__: distance(truth.moments, stats.moments)
            for distance in (fid, fid_diagonal)
        }
        return {**distances, "kid": kid(truth.rows[_POOL].array(), stats.rows[_POOL].array())[0]}

    def score(stats: FeatureStats) -> dict[str, float]:
        logits = stats.rows[_LOGITS].array()
        return {"inception_score": inception_score(logits, min(splits, len(logits)))[0]}

    return Extractor("inception", extract, collect, compare, score)


def vgg_pair_metrics(network: VGG16Features, lpips: list[Tensor]) -> PairMetrics:
    """Return a function that compares images with the true ones by VGG-16's features.

    For a batch it returns the VGG distance (Drouilhet and L'Herminé, section 12.1) and
    LPIPS of the generated images and of each baseline, (B,) each. `lpips` are the
    weights of LPIPS's linear layers, (1, C, 1, 1) per block of VGG-16.
    """

    @torch.no_grad()
    def pair_metrics(images: Versions) -> dict[str, Tensor]:
        truth = network(images["truth"].rgb)
        rows: dict[str, Tensor] = {}
        for version in (version for version in images if version != "truth"):
            maps = network(images[version].rgb)
            rows[f"vgg_distance.{version}"] = feature_distance(maps[:3], truth[:3])
            rows[f"lpips.{version}"] = lpips_distance(maps, truth, lpips)
        return rows

    return pair_metrics


def lpips_distance(generated: list[Tensor], truth: list[Tensor], weights: list[Tensor]) -> Tensor:
    """Return LPIPS (B,) from the feature maps of two batches of images.

    (Zhang et al. 2018, equation 1.) generated and truth: one (B, C, H, W) per layer.
    weights: one (1, C, 1, 1) per layer.
    """
    layers = [
        conv2d((_unit(one) - _unit(other)).square(), weight).mean(dim=(1, 2, 3))
        for one, other, weight in zip(generated, truth, weights, strict=True)
    ]
    return torch.stack(layers).sum(0)


def _unit(maps: Tensor) -> Tensor:
    return maps / (maps.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()


def _lpips_weights() -> list[Tensor]:
    """Return the weights of LPIPS 0.1's linear layers for VGG-16, from torchmetrics."""
    spec = find_spec("torchmetrics")
    assert spec
    assert spec.origin
    path = Path(spec.origin).parent / "functional" / "image" / "lpips_models" / "vgg.pth"
    tensors: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return [tensors[f"lin{layer}.model.1.weight"] for layer in range(5)]


@torch.no_grad()
def vgg_distance(network: VGG16Features, rgb: Tensor, truth: Tensor) -> Tensor:
    """Return the VGG distance (B,) of two batches of images.

    (Drouilhet and L'Herminé, equation 6.) rgb and truth: (B, 3, H, W) in [0, 1].
    """
    return feature_distance(network(rgb)[:3], network(truth)[:3])
