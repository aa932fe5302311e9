"""The arguments that `compare` and `reproduce` share: weights and scoring options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from colortrain.scale_down import PretrainedWeights
from launch.experiment.arguments import shared_options
from launch.reproduce import make_parser
from shards.errors import UserError

ARGS = ["drouilhet", "--source", "s", "--out", "o", "--budget", "full"]


def options(base_channels: int | None, metrics: tuple[str, ...], *args: str) -> dict[str, Any]:
    return shared_options(make_parser().parse_args([*ARGS, *args]), base_channels, metrics)


def test_networks_of_published_width_have_published_weights() -> None:
    scaled = options(16, ("vgg_distance",))
    assert (scaled["weights"], scaled["scoring"]) == (PretrainedWeights("random", None), ())
    published = options(None, ("vgg_distance",))
    assert published["weights"] == PretrainedWeights("imagenet", "imagenet")
    assert published["scoring"] == ("--vgg16", "imagenet")
    assert options(None, ("l1",))["scoring"] == ()  # no download that the table does not need
    without = options(None, ("vgg_distance",), "--vgg16", "random", "--resnet18", "none")
    assert (without["weights"], without["scoring"]) == (PretrainedWeights("random", None), ())


def test_files_are_used_for_training_and_for_scores(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.touch()
    names = ("--vgg16", "--resnet18", "--inception", "--squeezenet")
    given = options(64, (), *(word for name in names for word in (name, str(file))))
    assert given["weights"] == PretrainedWeights(str(file), str(file))
    scoring = ("--inception", "--vgg16", "--squeezenet")
    assert given["scoring"] == tuple(word for name in scoring for word in (name, str(file)))


@pytest.mark.parametrize("option", ["--vgg16", "--resnet18", "--inception", "--squeezenet"])
def test_missing_files_are_rejected(option: str) -> None:
    with pytest.raises(UserError, match=f"{option} nowhere.pth: no such file"):
        options(64, (), option, "nowhere.pth")
    with pytest.raises(UserError, match="require --base-channels 64"):
        options(16, (), "--resnet18", "imagenet")
