"""The `colortrain compare` command: a table with baselines, and an image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from launch import compare
from shards.errors import UserError
from tests.support.processes import run_command
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
    assert (
        "Each network was trained on 32 images, 3.2 epochs of 10 (left out: none), 32 px" in table
    )
    results = json.loads((tmp_path / "out" / "table.json").read_text())["results"]
    assert [result["samples"] for result in results] == [10, 10]
    assert results[0]["metrics"]["l1"]["grey"] == results[1]["metrics"]["l1"]["grey"]
    with Image.open(tmp_path / "out" / "picture.png") as image:
        width, height = image.size
    assert width > 4 * 32
    assert height > 8 * 32


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
    monkeypatch.setattr(compare, "run_experiment", lambda *_: pytest.fail("trains"))
    args = ["--shards", str(shards), "--out", str(tmp_path / "out"), "--images", "8"]
    with pytest.raises(UserError, match=message):
        compare.main([*args, "--photos", str(photos)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vgg16", "nowhere.pth"], "--vgg16 nowhere.pth: no such file"),
        (["--resnet18", "imagenet"], "require --base-channels 64"),
        (["--inception", "nowhere.pth"], "--inception nowhere.pth: no such file"),
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
