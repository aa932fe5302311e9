"""Load the pretrained networks that metrics need: Inception, VGG-16 and SqueezeNet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path
from typing import Literal

import torch

from colortrain.metrics.features import INCEPTION_SPLITS
from colortrain.metrics.network_metrics import (
    SQUEEZENET_SIZE,
    PairMetrics,
    inception_extractor,
    lpips_file,
    lpips_heads,
    squeezenet_extractor,
    squeezenet_pair_metrics,
    vgg_pair_metrics,
)
from colortrain.metrics.registry import METRICS, Needs
from colortrain.metrics.set_metrics import LAB_FIELDS, Extractor
from colortrain.models.inception import SIZE as INCEPTION_SIZE
from colortrain.models.inception import load_inception
from colortrain.models.pretrained import INCEPTION, SQUEEZENET, VGG16, PublishedWeights
from colortrain.models.squeezenet import MIN_SIZE as MIN_SIZE_SQUEEZENET
from colortrain.models.squeezenet import load_squeezenet
from colortrain.models.vgg16 import DEPTH_LPIPS, MIN_SIZE_LPIPS, load_vgg16
from shards.errors import UserError
from shards.files import sha256_of


@dataclass(frozen=True)
class FeatureExtractors:
    """The pretrained networks for `evaluate.score_split`, and their descriptions.

    `set_extractors` compute metrics of whole sets of images, `pair_metrics` metrics of
    single images, such as "lpips.generated": (B,). `facts` describes, for each metric,
    the network, its weights and the resizing of images. `left_out` maps the missing
    metrics to the option that enables them. `min_size` is the least height and width of
    images, in pixels.
    """

    set_extractors: tuple[Extractor, ...] = (LAB_FIELDS,)
    pair_metrics: tuple[PairMetrics, ...] = ()
    facts: Mapping[str, dict[str, str]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    min_size: int = 1

    def __add__(self, other: FeatureExtractors) -> FeatureExtractors:
        """Return the networks of both."""
        return FeatureExtractors(
            self.set_extractors + other.set_extractors,
            self.pair_metrics + other.pair_metrics,
            {**self.facts, **other.facts},
            {**self.left_out, **other.left_out},
            max(self.min_size, other.min_size),
        )


def load_extractors(
    *,
    inception: str | None = None,
    vgg16: str | None = None,
    squeezenet: str | None = None,
    inception_splits: int = INCEPTION_SPLITS,
    only: Collection[str] | None = None,
    device: torch.device | str = "cpu",
) -> FeatureExtractors:
    """Load the pretrained networks that metrics require, on `device`.

    `inception`, `vgg16` and `squeezenet` say which weights to use: "imagenet"
    (downloaded once), the path of a file, or "random" (always the same weights). With
    None, the published file is used if it is in torch's cache; otherwise the metrics
    that need it are left out. `inception_splits` is described in `inception_extractor`.
    If `only` is given, only networks for the metrics of these names are loaded.

    Raises UserError if weights cannot be loaded, or if a metric in `only` lacks them.
    """
    loaders: tuple[tuple[Needs, str | None, PublishedWeights, _Loader], ...] = (
        ("inception", inception, INCEPTION, partial(_inception, splits=inception_splits)),
        ("vgg16", vgg16, VGG16, _vgg16),
        ("squeezenet", squeezenet, SQUEEZENET, _squeezenet),
    )
    needs_nothing = only is None or "frechet_lab" in only
    parts = [FeatureExtractors((LAB_FIELDS,) if needs_nothing else ())]
    for needs, weights, published, load in loaders:
        names = [metric for metric in _names(needs) if only is None or metric in only]
        source = weights or _if_cached(published)
        if names and source:
            parts.append(load(source, names, device))
        elif names:
            parts.append(_missing(names, needs, published, is_error=only is not None))
    return reduce(FeatureExtractors.__add__, parts)


# from weights, names of metrics and the device
_Loader = Callable[[str, list[str], torch.device | str], FeatureExtractors]


def _names(needs: Needs) -> list[str]:
    return [metric.name for metric in METRICS.values() if metric.needs == needs]


def _if_cached(published: PublishedWeights) -> str | None:
    return "imagenet" if published.file.is_file() else None


def _missing(
    names: Iterable[str], needs: Needs, published: PublishedWeights, is_error: bool
) -> FeatureExtractors:
    listed = ", ".join(names)
    how = f"--{needs} FILE or --{needs} imagenet ({published.url})"
    if is_error:
        raise UserError(f"--metrics {listed}: requires {how}")
    return FeatureExtractors((), left_out={listed: how})


def _inception(
    weights: str, _: list[str], device: torch.device | str, splits: int
) -> FeatureExtractors:
    network = load_inception(weights, "leave out --inception").to(device)
    described = _describe(
        "Inception-v3 of 2015-12-05",
        weights,
        INCEPTION,
        f"{INCEPTION_SIZE} px, bilinear as TensorFlow 1's",
    )
    return FeatureExtractors(
        (inception_extractor(network, splits),), facts=dict.fromkeys(_names("inception"), described)
    )


def _vgg16(weights: str, _: list[str], device: torch.device | str) -> FeatureExtractors:
    network = load_vgg16(weights, "leave out --vgg16", DEPTH_LPIPS).to(device)
    described = _describe("VGG-16", weights, VGG16, "none")
    return FeatureExtractors(
        (),
        (vgg_pair_metrics(network, lpips_heads("vgg", device)),),
        {"lpips": _with_heads(described, "vgg"), "vgg_distance": described},
        min_size=MIN_SIZE_LPIPS,
    )


def _squeezenet(weights: str, names: list[str], device: torch.device | str) -> FeatureExtractors:
    network = load_squeezenet(weights, "leave out --squeezenet").to(device)
    described = _describe("SqueezeNet 1.1", weights, SQUEEZENET, "none")
    # each has images of its own size, so each takes time
    lpips = FeatureExtractors(
        (),
        (squeezenet_pair_metrics(network, lpips_heads("squeeze", device)),),
        {"lpips_squeeze": _with_heads(described, "squeeze")},
        min_size=MIN_SIZE_SQUEEZENET,
    )
    frechet = FeatureExtractors(
        (squeezenet_extractor(network),),
        facts={"frechet_squeezenet": described | {"resize": f"{SQUEEZENET_SIZE} px, bilinear"}},
    )
    parts = {"lpips_squeeze": lpips, "frechet_squeezenet": frechet}
    return reduce(FeatureExtractors.__add__, (parts[name] for name in names))


def _with_heads(described: dict[str, str], network: Literal["vgg", "squeeze"]) -> dict[str, str]:
    digest = sha256_of(lpips_file(network))[:16]
    layers = f"LPIPS 0.1's linear layers (sha256 {digest})"
    return described | {"extractor": f"{described['extractor']}, {layers}"}


def _describe(
    extractor: str, weights: str, published: PublishedWeights, resize: str
) -> dict[str, str]:
    if weights == "random":
        source = "random: comparable with nothing published"
    else:
        path = published.file if weights == "imagenet" else Path(weights)
        source = f"sha256 {sha256_of(path)[:16]}"
    return {"extractor": extractor, "weights": source, "resize": resize}
