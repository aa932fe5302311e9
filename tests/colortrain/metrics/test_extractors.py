"""Metrics from pretrained networks, against torchmetrics' implementations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import lpips as reference_lpips
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from colortrain.metrics.extractors import (
    _lpips_weights,
    inception_extractor,
    load_extractors,
    vgg_pair_metrics,
)
from colortrain.metrics.image_metrics import ImageBatch, image_versions
from colortrain.metrics.set_metrics import SetMetrics
from colortrain.models.pretrained import PublishedWeights
from colortrain.models.vgg16 import DEPTH_LPIPS, load_vgg16
from shards.color import rgb_to_lab
from shards.errors import UserError
from tests.support.small_shard_set import cut_outs


@pytest.fixture(scope="module")
def images() -> dict[str, ImageBatch]:
    """Forty photographs of 32 px, and the same with paler, noisy colours."""
    truth = torch.tensor(np.stack([rgb_to_lab(rgb) for rgb in cut_outs(32, 40)]))
    noise = torch.randn(truth[:, 1:].shape, generator=torch.Generator().manual_seed(0))
    return image_versions(
        torch.cat([truth[:, :1], 0.6 * truth[:, 1:] + 8 * noise], dim=1), truth, (0, 6)
    )


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
def test_fid_kid_and_inception_score_equal_torchmetrics(images: dict[str, ImageBatch]) -> None:
    set_metrics = SetMetrics([inception_extractor(Small(), splits=1)])
    for start in (16, 0, 32):
        set_metrics.update(
            {name: ImageBatch(one.lab[start : start + 16]) for name, one in images.items()}, start
        )
    result = set_metrics.compute()
    eight_bits = {name: (255 * one.rgb).round().to(torch.uint8) for name, one in images.items()}
    for version in ("generated", "grey", "median"):
        distance = FrechetInceptionDistance(feature=Output(0))
        kernel = KernelInceptionDistance(feature=Output(0), subsets=1, subset_size=40)
        score = InceptionScore(feature=Output(1), splits=1)
        for metric in (distance, kernel):
            metric.update(eight_bits["truth"], real=True)
            metric.update(eight_bits[version], real=False)
        score.update(eight_bits[version])
        assert result["fid"][version] == pytest.approx(float(distance.compute()), rel=1e-4)
        assert result["kid"][version] == pytest.approx(float(kernel.compute()[0]), rel=1e-4)
        assert result["inception_score"][version] == pytest.approx(
            float(score.compute()[0]), rel=1e-4
        )
    assert "truth" in result["inception_score"]
    assert "truth" not in result["fid"]


def test_lpips_equals_torchmetrics(
    images: dict[str, ImageBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load_vgg16("random", "", DEPTH_LPIPS)
    monkeypatch.setattr(
        reference_lpips, "_get_tv_model_features", lambda net, pretrained: network.features
    )
    reference = reference_lpips._LPIPS(pretrained=True, net="vgg", pnet_rand=True)
    rows = vgg_pair_metrics(network, _lpips_weights())(images)
    for version in ("generated", "grey", "median"):
        expected = reference(images[version].rgb, images["truth"].rgb, normalize=True).flatten()
        torch.testing.assert_close(rows[f"lpips.{version}"], expected, rtol=1e-4, atol=0)
    assert (rows["vgg_distance.generated"] > 0).all()


def test_without_weights_left_out_says_how_to_enable_the_metrics(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    by = load_extractors()
    assert [extractor.name for extractor in by.set_extractors] == ["lab_fields"]
    assert list(by.left_out) == ["fid, fid_diagonal, kid, inception_score", "vgg_distance, lpips"]
    assert all("--inception FILE" in how or "--vgg16 FILE" in how for how in by.left_out.values())
    monkeypatch.setattr(
        "colortrain.models.inception.INCEPTION",
        PublishedWeights((tmp_path / "w-6726825d.pth").as_uri()),
    )
    with pytest.raises(UserError, match=r"put the file into .* or leave out --inception"):
        load_extractors(inception="imagenet")


def test_facts_include_the_hash_of_the_weights(tmp_path: Path) -> None:
    file = tmp_path / "vgg.pth"
    torch.save(load_vgg16("random", "", DEPTH_LPIPS).state_dict(), file)
    facts = load_extractors(vgg16=str(file)).facts["lpips"]
    assert facts["weights"].startswith("sha256 ")
    assert len(facts["weights"]) == len("sha256 ") + 16
    assert "random" in load_extractors(vgg16="random").facts["lpips"]["weights"]
