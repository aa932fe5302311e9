"""The comparison door: two recipes on one tiny set give one table beside grey and one picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from colortrain.recipes import RECIPES
from launch import compare
from launch.compare import check_images, prepared
from shards.errors import UserError
from tests.support.processes import run_command
from tests.support.small_run import small_run
from tests.support.small_shard_set import small_set


@pytest.mark.distributed
def test_two_recipes_in_one_table(tmp_path: Path) -> None:
    shards = small_set(tmp_path / "set", size=32, count=20, splits=("train", "val"))
    names = ["nazeri_unet_l2", "valentini_wgan"]
    asked = [
        "--shards",
        shards,
        "--out",
        tmp_path / "out",
        "--images",
        32,
        "--base-channels",
        2,
        "--recipes",
        *names,
    ]
    done = run_command("launch.compare", asked)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "out" / "table.md").read_text()
    assert [
        line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| `")
    ] == [f"`{name}`" for name in names]
    assert "| *grey* |" in table
    assert table in done.stdout
    results = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [result["samples"] for result in results] == [10, 10]
    assert results[0]["metrics"]["l1"]["grey"] == results[1]["metrics"]["l1"]["grey"]
    with Image.open(tmp_path / "out" / "picture.png") as picture:
        width, height = picture.size
    assert width > 4 * 32
    assert height > 8 * 32


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_fits_small_pictures(name: str) -> None:
    recipe = prepared(name, 32, 8, 1000)
    recipe.check()
    assert recipe.size == 32
    assert recipe.total_images(1) == 1000


def test_unknown_recipes_are_named_before_any_work(tmp_path: Path) -> None:
    asked = [
        "--shards",
        tmp_path,
        "--out",
        tmp_path / "out",
        "--images",
        32,
        "--recipes",
        "nazeri_gann",
    ]
    done = run_command("launch.compare", asked)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "valid, nearest first: nazeri_gan," in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("size", "said"), [(16, "holds 16 px, the networks are trained on 32"), (None, "no folder")]
)
def test_other_photos_are_looked_at_before_any_work(
    size: int | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = small_set(tmp_path / "set", size=32, count=4, splits=("train", "val"))
    photos = small_set(tmp_path / "photos", size=size, count=4) if size else tmp_path / "none"
    monkeypatch.setattr(compare, "run_one", lambda *_: pytest.fail("trains"))
    with pytest.raises(UserError, match=said):
        compare.main(
            [
                "--shards",
                str(shards),
                "--out",
                str(tmp_path / "out"),
                "--images",
                "8",
                "--photos",
                str(photos),
            ]
        )


def test_networks_that_saw_more_images_are_not_compared(tmp_path: Path) -> None:
    recipe = prepared("nazeri_unet_l2", 32, 8, 1000)
    small_run(tmp_path, step=100)  # 100 steps of 16 pictures
    with pytest.raises(UserError, match="trained on 1,600 images, more than --images"):
        check_images(recipe, tmp_path)
    check_images(prepared("nazeri_unet_l2", 32, 8, 1600), tmp_path)
