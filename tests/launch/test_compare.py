"""The `colortrain compare` command: a table with baselines, and an image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from colortrain.differences import missing_weights
from colortrain.recipes import RECIPES
from launch import compare
from launch.compare import (
    check_images,
    make_parser,
    markdown,
    prepare_recipe,
    pretrained_weights,
)
from shards.errors import UserError
from tests.support.processes import run_command
from tests.support.small_run import small_run
from tests.support.small_shard_set import small_set


@pytest.mark.distributed
def test_two_recipes_in_one_table(tmp_path: Path) -> None:
    shards = small_set(tmp_path / "set", size=32, count=20, splits=("train", "val"))
    names = ["nazeri_unet_l2", "valentini_wgan"]
    args = ["--shards", shards, "--out", tmp_path / "out", "--images", 32, "--base-channels", 2]
    done = run_command("launch.compare", [*args, "--recipes", *names])
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "out" / "table.md").read_text()
    assert [
        line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| `")
    ] == [f"`{name}`" for name in names]
    assert "| *grayscale* |" in table
    assert table in done.stdout
    results = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [result["samples"] for result in results] == [10, 10]
    assert results[0]["metrics"]["l1"]["grey"] == results[1]["metrics"]["l1"]["grey"]
    with Image.open(tmp_path / "out" / "picture.png") as image:
        width, height = image.size
    assert width > 4 * 32
    assert height > 8 * 32


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_scaled_down_to_small_images(name: str) -> None:
    recipe = prepare_recipe(name, 32, 8, 1000)
    recipe.check()
    assert recipe.size == 32
    assert recipe.total_images(1) == 1000


def test_a_size_that_does_not_fit_is_reported_without_a_hint_at_missing_options() -> None:
    with pytest.raises(UserError, match=r"requires a size divisible by .* other recipes") as raised:
        prepare_recipe("nampouri_unet", 33, 8, 1000)
    assert "nampouri_unet cannot be trained at 33 px" in str(raised.value)
    assert "set generator" not in str(raised.value)  # this command has no --set


def test_unknown_recipes_are_rejected_before_any_work(tmp_path: Path) -> None:
    args = ["--shards", tmp_path, "--out", tmp_path / "out", "--images", 32]
    done = run_command("launch.compare", [*args, "--recipes", "nazeri_gann"])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "valid, nearest first: nazeri_gan," in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("size", "message"),
    [(16, "has samples of 16 px, but the networks are trained at 32 px"), (None, "no folder")],
)
def test_other_photos_are_checked_before_any_work(
    size: int | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = small_set(tmp_path / "set", size=32, count=4, splits=("train", "val"))
    photos = small_set(tmp_path / "photos", size=size, count=4) if size else tmp_path / "none"
    monkeypatch.setattr(compare, "train_and_score", lambda *_: pytest.fail("trains"))
    args = ["--shards", str(shards), "--out", str(tmp_path / "out"), "--images", "8"]
    with pytest.raises(UserError, match=message):
        compare.main([*args, "--photos", str(photos)])


def test_runs_with_more_images_are_rejected(tmp_path: Path) -> None:
    recipe = prepare_recipe("nazeri_unet_l2", 32, 8, 1000)
    small_run(tmp_path, step=100)  # 100 steps of 16 images
    with pytest.raises(UserError, match="trained on 1,600 images, more than --images"):
        check_images(recipe, tmp_path)
    check_images(prepare_recipe("nazeri_unet_l2", 32, 8, 1600), tmp_path)


def test_rows_name_what_they_lack_of_their_papers() -> None:
    protocol = {"split": "val", "dataset_id": "feed", "size": 32, "fit": "crop"}
    shared = {"seconds": 1, "processes": [1], "samples": 2, "protocol": protocol}
    results = [
        {**shared, "recipe": name, "metrics": {"l1": {"generated": 0.5}}, "differences": lacks}
        for name, lacks in (("a", ["random VGG-16"]), ("b", []))
    ]
    lines = markdown(results, 1000).splitlines()
    assert "| `a` (random VGG-16) | 0.5000 | 1 |" in lines
    assert "| `b` | 0.5000 | 1 |" in lines
    assert "not their papers' systems as published" in lines[-1]
    assert "as published" not in markdown(results[1:], 1000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vgg16", "nowhere.pth"], "--vgg16 nowhere.pth: no such file"),
        (["--resnet18", "imagenet"], "require --base-channels 64"),
    ],
)
def test_weights_that_cannot_be_used_are_rejected_before_any_work(
    options: list[str], message: str, tmp_path: Path
) -> None:
    shards = small_set(tmp_path / "set", size=32, count=4, splits=("train", "val"))
    args = ["--shards", str(shards), "--out", str(tmp_path / "out"), "--images", "8"]
    with pytest.raises(UserError, match=message):
        compare.main([*args, *options])
    assert not (tmp_path / "out").exists()


def test_the_options_reach_the_recipes(tmp_path: Path) -> None:
    file = tmp_path / "vgg.pth"
    file.touch()
    argv = ["--shards", "s", "--out", "o", "--images", "8", "--base-channels", "64"]
    args = make_parser().parse_args([*argv, "--vgg16", str(file), "--resnet18", "imagenet"])
    weights = pretrained_weights(args)
    progan = prepare_recipe("drouilhet_progan", 32, 64, 8, weights)
    assert [term.weights for term in progan.objective.reconstruction] == [str(file)]  # type: ignore[union-attr]
    assert missing_weights(progan) == []
    resnet = prepare_recipe("nampouri_resnet18", 64, 64, 8, weights)
    assert resnet.generator.pretrained == "imagenet"  # type: ignore[union-attr]
    assert missing_weights(prepare_recipe("nampouri_resnet18", 64, 16, 8)) == [
        "ResNet-18 without ImageNet weights"
    ]


def test_baselines_without_values_have_no_row() -> None:
    l1 = {"generated": 0.25, "grey": 0.5, "truth": None}
    protocol = {"split": "val", "dataset_id": "feed", "size": 32, "fit": "crop"}
    cost = {"seconds": 1.4, "processes": [1]}
    result = {"recipe": "ours", **cost, "samples": 2, "protocol": protocol}
    lines = markdown([{**result, "metrics": {"l1": l1}}], 1000).splitlines()
    assert lines[0].startswith("1,000 training images each, processes per network: 1; scored on 2")
    assert lines[2:] == [
        "| recipe | L1 of ab / 110 | seconds |",
        "| --- | --: | --: |",
        "| better | ↓ |  |",
        "| *grayscale* | 0.5000 |  |",
        "| `ours` | 0.2500 | 1 |",
    ]
