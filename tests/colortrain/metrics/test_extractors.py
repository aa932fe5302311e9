"""Loading of the pretrained networks for metrics: facts, missing weights, choices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from colortrain.metrics.extractors import load_extractors
from colortrain.metrics.network_metrics import lpips_file
from colortrain.metrics.registry import METRICS
from colortrain.models.pretrained import PublishedWeights
from colortrain.models.squeezenet import load_squeezenet
from colortrain.models.vgg16 import DEPTH_LPIPS, load_vgg16
from shards.errors import UserError
from shards.files import sha256_of


@pytest.fixture(autouse=True)
def no_cached_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def test_without_weights_left_out_says_how_to_enable_the_metrics(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    by = load_extractors()
    assert [extractor.name for extractor in by.set_extractors] == ["lab_fields"]
    assert list(by.left_out) == [
        "fid, fid_diagonal, kid, inception_score",
        "lpips, vgg_distance",
        "lpips_squeeze, frechet_squeezenet",
    ]
    options = ("--inception", "--vgg16", "--squeezenet")
    for option, how in zip(options, by.left_out.values(), strict=True):
        assert how.startswith(f"{option} FILE or {option} imagenet (https://")
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


def test_squeezenet_is_described_with_both_hashes(tmp_path: Path) -> None:
    """Half precision, as the file may be."""
    file = tmp_path / "squeezenet.safetensors"
    state = load_squeezenet("random", "").state_dict()
    save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, file)
    by = load_extractors(squeezenet=str(file))
    digest, heads = sha256_of(file)[:16], sha256_of(lpips_file("squeeze"))[:16]
    assert by.facts["lpips_squeeze"] == {
        "extractor": f"SqueezeNet 1.1, LPIPS 0.1's linear layers (sha256 {heads})",
        "weights": f"sha256 {digest}",
        "resize": "none",
    }
    assert by.facts["frechet_squeezenet"] == {
        "extractor": "SqueezeNet 1.1",
        "weights": f"sha256 {digest}",
        "resize": "128 px, bilinear",
    }
    assert by.min_size == 17


@pytest.mark.parametrize(
    ("only", "extractors", "pairs"),
    [
        ({"lpips_squeeze"}, [], 1),
        ({"frechet_squeezenet"}, ["squeezenet"], 0),
        ({"frechet_lab", "l1"}, ["lab_fields"], 0),
        ({"frechet_squeezenet", "lpips_squeeze", "frechet_lab"}, ["lab_fields", "squeezenet"], 1),
    ],
)
def test_only_what_the_metrics_need_is_loaded(
    only: set[str], extractors: list[str], pairs: int
) -> None:
    by = load_extractors(inception="missing", vgg16="missing", squeezenet="random", only=only)
    assert [each.name for each in by.set_extractors] == extractors
    assert len(by.pair_metrics) == pairs
    assert by.left_out == {}
    assert set(by.facts) == {name for name in only if METRICS[name].needs}


def test_a_metric_that_lacks_its_weights_is_an_error() -> None:
    with pytest.raises(UserError, match="--metrics lpips: requires --vgg16 FILE or --vgg16 imag"):
        load_extractors(squeezenet="random", only={"lpips", "lpips_squeeze"})


def test_weights_of_another_network_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "vgg.safetensors"
    save_file(load_vgg16("random", "").state_dict(), file)
    with pytest.raises(UserError, match=r"SqueezeNet 1.1 from .*vgg.safetensors lacks 48 of 50"):
        load_extractors(squeezenet=str(file))
    with pytest.raises(UserError, match=r"no weights file .*none.pth.* or leave out --squeezenet"):
        load_extractors(squeezenet=str(tmp_path / "none.pth"))
