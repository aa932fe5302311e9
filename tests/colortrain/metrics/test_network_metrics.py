"""Metrics from pretrained networks, against torchmetrics' implementations."""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torchmetrics.functional.image import lpips as reference_lpips
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from colortrain.metrics.features import kid
from colortrain.metrics.image_metrics import ImageBatch, image_versions
from colortrain.metrics.network_metrics import (
    SQUEEZENET_SIZE,
    inception_extractor,
    lpips_heads,
    squeezenet_extractor,
    squeezenet_pair_metrics,
    vgg_pair_metrics,
)
from colortrain.metrics.set_metrics import SetMetrics
from colortrain.models.squeezenet import load_squeezenet
from colortrain.models.vgg16 import DEPTH_LPIPS, load_vgg16
from shards.color import rgb_to_lab
from tests.support.small_shard_set import cut_outs


@pytest.fixture(scope="module")
def images() -> dict[str, ImageBatch]:
    """Forty photographs of 32 px, and the same with paler, noisy colours."""
    truth = torch.tensor(np.stack([rgb_to_lab(rgb) for rgb in cut_outs(32, 40)]))
    noise = torch.randn(truth[:, 1:].shape, generator=torch.Generator().manual_seed(0))
    return image_versions(
        torch.cat([truth[:, :1], 0.6 * truth[:, 1:] + 8 * noise], dim=1), truth, (0, 6)
    )


SPLITS = 4  # of 40 images for the inception score


class Small(nn.Module):
    """A small network with the interface of `Inception`."""

    num_features = 24

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.net = nn.Sequential(
                nn.Conv2d(3, 24, 5, stride=3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
            )
            self.fc = nn.Linear(24, 30, bias=False)

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        features = self.net(rgb.float() / 32)
        return features, 3 * self.fc(features)


class Output(nn.Module):
    """One of the two outputs, in the form that torchmetrics needs."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.small, self.index, self.num_features = Small(), index, Small.num_features

    def forward(self, rgb: Tensor) -> Tensor:
        output: Tensor = self.small(rgb)[self.index]
        return output


@pytest.mark.filterwarnings("ignore::UserWarning")  # torchmetrics warns about memory
def test_fid_kid_and_inception_score_equal_torchmetrics(
    images: dict[str, ImageBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "randperm", torch.arange)  # torchmetrics shuffles the images
    set_metrics = SetMetrics([inception_extractor(Small(), splits=SPLITS)])
    for start in (16, 0, 32):
        set_metrics.update(
            {name: ImageBatch(one.lab[start : start + 16]) for name, one in images.items()}, start
        )
    result, deviations = set_metrics.compute()
    eight_bits = {name: (255 * one.rgb).round().to(torch.uint8) for name, one in images.items()}
    for version in ("generated", "grey", "median"):
        distance = FrechetInceptionDistance(feature=Output(0))
        kernel = KernelInceptionDistance(feature=Output(0), subsets=1, subset_size=40)
        score = InceptionScore(feature=Output(1), splits=SPLITS)
        for metric in (distance, kernel):
            metric.update(eight_bits["truth"], real=True)
            metric.update(eight_bits[version], real=False)
        score.update(eight_bits[version])
        assert result["fid"][version] == pytest.approx(float(distance.compute()), rel=1e-4)
        assert result["kid"][version] == pytest.approx(float(kernel.compute()[0]), rel=1e-4)
        mean, std = (float(each) for each in score.compute())
        assert result["inception_score"][version] == pytest.approx(mean, rel=1e-4)
        # torchmetrics divides by the number of splits less one, unlike the authors
        std *= ((SPLITS - 1) / SPLITS) ** 0.5
        assert deviations["inception_score"][version] == pytest.approx(std, rel=1e-3)
        assert std > 0.001 * mean
    assert "truth" in result["inception_score"]
    assert "truth" not in result["fid"]
    # of 40 images, KID's subsets are the whole set
    assert set(deviations) == set(set_metrics.deviations) == {"inception_score"}


def test_the_parts_of_deviations_are_described() -> None:
    extractor = inception_extractor(Small(), splits=10)
    assert extractor.deviations(40) == {"inception_score": "10 splits of 4 images"}
    assert extractor.deviations(7) == {"inception_score": "7 splits of 1 image"}
    assert extractor.deviations(3001) == {
        "inception_score": "10 splits of 300 or 301 images",
        "kid": "100 random subsets of 1,000 images",
    }
    whole = inception_extractor(Small(), splits=1)
    assert whole.deviations(40) == {"inception_score": "1 split of 40 images"}


def test_kid_has_a_deviation_if_its_subsets_are_parts_of_the_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With three subsets instead of 100, to save time."""
    monkeypatch.setattr("colortrain.metrics.network_metrics.kid", partial(kid, subsets=3))
    extractor = inception_extractor(Small())
    draw = np.random.default_rng(0)
    real, fake = (
        extractor.collect({"pool": draw.normal(x, 1, (1200, 3)), "logits": np.zeros((1200, 2))}, 0)
        for x in (0, 1)
    )
    expected = kid(real.rows["pool"].array(), fake.rows["pool"].array(), subsets=3)
    assert extractor.compare(real, fake)["kid"] == expected
    assert expected[1] > 0


@pytest.mark.parametrize("name", ["vgg", "squeeze"])
def test_lpips_equals_torchmetrics(
    name: Literal["vgg", "squeeze"], images: dict[str, ImageBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = lpips_heads(name, "cpu")
    if name == "vgg":
        vgg16 = load_vgg16("random", "", DEPTH_LPIPS)
        features, metric, pair_metrics = vgg16.features, "lpips", vgg_pair_metrics(vgg16, heads)
    else:
        squeezenet = load_squeezenet("random", "")
        features, metric = squeezenet.features, "lpips_squeeze"
        pair_metrics = squeezenet_pair_metrics(squeezenet, heads)
    monkeypatch.setattr(reference_lpips, "_get_tv_model_features", lambda net, pretrained: features)
    reference = reference_lpips._LPIPS(pretrained=True, net=name, pnet_rand=True)
    rows = pair_metrics(images)
    for version in ("generated", "grey", "median"):
        expected = reference(images[version].rgb, images["truth"].rgb, normalize=True).flatten()
        torch.testing.assert_close(rows[f"{metric}.{version}"], expected, rtol=1e-4, atol=1e-7)
        assert (expected > 1e-3).any()
    if name == "vgg":
        assert (rows["vgg_distance.generated"] > 0).all()


@pytest.mark.parametrize("size", [32, 160])
def test_frechet_squeezenet_equals_its_formula_on_images_resized_by_pillow(size: int) -> None:
    """With means of three channels and three products of them as the features."""

    def network(rgb: Tensor) -> list[Tensor]:
        assert rgb.shape[-2:] == (SQUEEZENET_SIZE, SQUEEZENET_SIZE)
        return [rgb.mean(dim=(2, 3), keepdim=True), torch.cat([rgb, 9 * rgb * rgb.roll(1, 1)], 1)]

    truth = torch.tensor(np.stack([rgb_to_lab(rgb) for rgb in cut_outs(size, 12)]))
    noise = torch.randn(truth[:, 1:].shape, generator=torch.Generator().manual_seed(0))
    versions = image_versions(torch.cat([truth[:, :1], truth[:, 1:] + 20 * noise], 1), truth)
    set_metrics = SetMetrics([squeezenet_extractor(network)])
    set_metrics.update(versions, 0)

    def features(images: ImageBatch) -> np.ndarray:
        planes = [
            [Image.fromarray(plane).resize((128, 128), Image.Resampling.BILINEAR) for plane in rgb]
            for rgb in images.rgb.numpy()
        ]
        rgb = torch.tensor(np.asarray([[np.asarray(p) for p in image] for image in planes]))
        return network(rgb)[-1].mean(dim=(2, 3)).double().numpy()

    result = set_metrics.compute().metrics["frechet_squeezenet"]
    real = features(versions["truth"])
    for version in ("generated", "grey"):
        fake = features(versions[version])
        product = np.cov(real.T) @ np.cov(fake.T)
        expected = np.square(real.mean(0) - fake.mean(0)).sum() + np.trace(
            np.cov(real.T) + np.cov(fake.T) - 2 * sqrtm(product).real
        )
        assert expected > 1e-3
        assert result[version] == pytest.approx(expected, rel=1e-3)
