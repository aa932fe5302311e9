"""Networks of others that judge pictures: Inception for FID, KID and IS, VGG-16 for its own distance and LPIPS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from colortrain.metrics.features import Moments, Rows, fid, fid_diagonal, inception_score, kid
from colortrain.metrics.image_metrics import Pictures
from colortrain.metrics.set_metrics import LAB_FIELDS, Extractor, FeatureStats
from colortrain.models.inception import SIZE, load_inception
from colortrain.models.pretrained import INCEPTION, VGG16, PublishedWeights
from colortrain.models.vgg16 import DEPTH_LPIPS, VGG16Features, feature_distance, load_vgg16
from shards.files import sha256_of

Versions = Mapping[str, Pictures]
Pairs = Callable[[Versions], dict[str, Tensor]]

_LOGITS, _POOL = "logits", "pool"


@dataclass(frozen=True)
class FeatureExtractors:
    """Eyes for whole sets, a judge of pairs ("lpips.generated": (B,)) or None, and of each network-made metric what it
    was made with; of those left out, how to have them."""

    set_extractors: tuple[Extractor, ...] = (LAB_FIELDS,)
    pair_metrics: Pairs | None = None
    facts: Mapping[str, dict[str, str]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def load_extractors(
    inception: str | None = None, vgg16: str | None = None, device: torch.device | str = "cpu"
) -> FeatureExtractors:
    """FeatureExtractors with these weights: "imagenet" (downloaded once), a file's path, or "random" (always the same).

    None: the published file if torch's cache has it, else left out. Raises `UserError` if weights cannot be had.
    """
    inception, vgg16 = inception or _at_hand(INCEPTION), vgg16 or _at_hand(VGG16)
    extractors, pairs = [LAB_FIELDS], None
    made: dict[str, dict[str, str]] = {}
    missing: dict[str, str] = {}
    if inception:
        extractors.append(
            inception_extractor(load_inception(inception, "leave out --inception").to(device))
        )
        facts = _facts(
            "Inception-v3 of 2015-12-05",
            inception,
            INCEPTION,
            f"{SIZE} px, bilinear as TensorFlow 1's",
        )
        made |= dict.fromkeys(("fid", "fid_diagonal", "kid", "inception_score"), facts)
    else:
        missing["fid, fid_diagonal, kid, inception_score"] = _how("--inception", INCEPTION)
    if vgg16:
        lpips = _lpips_weights()
        network = load_vgg16(vgg16, "leave out --vgg16", DEPTH_LPIPS).to(device)
        pairs = vgg_pairs(network, [weight.to(device) for weight in lpips])
        facts = _facts("VGG-16", vgg16, VGG16, "none")
        made |= {
            "vgg_distance": facts,
            "lpips": facts | {"extractor": "VGG-16, LPIPS 0.1's linear layers"},
        }
    else:
        missing["vgg_distance, lpips"] = _how("--vgg16", VGG16)
    return FeatureExtractors(tuple(extractors), pairs, made, missing)


def _at_hand(published: PublishedWeights) -> str | None:
    return "imagenet" if published.file.is_file() else None


def _how(option: str, published: PublishedWeights) -> str:
    return f"{option} FILE or {option} imagenet ({published.url})"


def _facts(
    extractor: str, weights: str, published: PublishedWeights, resize: str
) -> dict[str, str]:
    if weights == "random":
        return {
            "extractor": extractor,
            "weights": "random: comparable with nothing published",
            "resize": resize,
        }
    path = published.file if weights == "imagenet" else Path(weights)
    return {"extractor": extractor, "weights": f"sha256 {sha256_of(path)[:16]}", "resize": resize}


def inception_extractor(
    network: Callable[[Tensor], tuple[Tensor, Tensor]], splits: int = 10
) -> Extractor:
    """FID, its diagonal variant and KID against the truth, and the inception score of each version by itself.

    Pictures are rounded to 8 bits first, as those from files are. Keeps 12 KB a picture and version, for KID and IS.
    """

    @torch.no_grad()
    def look(pictures: Pictures, start: int) -> FeatureStats:
        features, logits = (found.cpu().numpy() for found in network((255 * pictures.rgb).round()))
        rows = {_POOL: Rows(((start, features),)), _LOGITS: Rows(((start, logits),))}
        return FeatureStats(Moments.of(features), rows)

    def compare(truth: FeatureStats, seen: FeatureStats) -> dict[str, float]:
        distances = {
            measure.__name__: measure(truth.moments, seen.moments)
            for measure in (fid, fid_diagonal)
        }
        return {**distances, "kid": kid(truth.rows[_POOL].array(), seen.rows[_POOL].array())[0]}

    def alone(seen: FeatureStats) -> dict[str, float]:
        logits = seen.rows[_LOGITS].array()
        return {"inception_score": inception_score(logits, min(splits, len(logits)))[0]}

    return Extractor("inception", look, compare, alone)


def vgg_pairs(network: VGG16Features, lpips: list[Tensor]) -> Pairs:
    """Drouilhet's VGG distance (equation 6, section 12.1) and LPIPS of every version against the truth."""

    @torch.no_grad()
    def pairs(shown: Versions) -> dict[str, Tensor]:
        truth = network(shown["truth"].rgb)
        rows: dict[str, Tensor] = {}
        for version in (version for version in shown if version != "truth"):
            maps = network(shown[version].rgb)
            rows[f"vgg_distance.{version}"] = feature_distance(maps[:3], truth[:3])
            rows[f"lpips.{version}"] = learned_distance(maps, truth, lpips)
        return rows

    return pairs


def learned_distance(found: list[Tensor], truth: list[Tensor], weights: list[Tensor]) -> Tensor:
    """LPIPS (Zhang et al. 2018, equation 1) of maps, each pixel's features scaled to length 1 first: (B,)."""
    layers = [
        conv2d((_unit(one) - _unit(other)).square(), weight).mean(dim=(1, 2, 3))
        for one, other, weight in zip(found, truth, weights, strict=True)
    ]
    return torch.stack(layers).sum(0)


def _unit(maps: Tensor) -> Tensor:
    return maps / (maps.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()


def _lpips_weights() -> list[Tensor]:
    """LPIPS 0.1's linear layers on VGG-16, which come with torchmetrics."""
    spec = find_spec("torchmetrics")
    assert spec
    assert spec.origin
    path = Path(spec.origin).parent / "functional" / "image" / "lpips_models" / "vgg.pth"
    tensors: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return [tensors[f"lin{layer}.model.1.weight"] for layer in range(5)]


@torch.no_grad()
def vgg_distance(network: VGG16Features, rgb: Tensor, truth: Tensor) -> Tensor:
    """Drouilhet's VGG metric of each picture: RGB (B, 3, H, W) in [0, 1], twice, to (B,)."""
    return feature_distance(network(rgb)[:3], network(truth)[:3])
