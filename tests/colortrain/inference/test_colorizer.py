"""Trained networks: saving and loading for every recipe, and colorizing photographs.

Colorizing keeps the lightness of the photograph.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import colortrain
from colortrain.inference.colorizer import Colorizer, describe
from colortrain.recipe import Recipe
from colortrain.recipes import RECIPES, get_recipe
from colortrain.runs.checkpoint import load_generator, save_checkpoint
from colortrain.serialize import to_plain
from shards.color import rgb_to_lab
from shards.errors import UserError
from tests.support.scaled_recipes import scaled
from tests.support.small_run import small_run
from tests.support.small_shard_set import photograph


def scaled_run(name: str, run: Path) -> Recipe:
    """Save a small, untrained generator with running statistics other than 0 and 1."""
    recipe = scaled(get_recipe(name))
    torch.manual_seed(1)
    generator = recipe.generator.build()
    with torch.no_grad():
        generator(torch.randn(4, 1, recipe.size, recipe.size))
    state = {"images": 24, "dataset_id": "abc"}
    save_checkpoint(run, 6, {"generator": generator.state_dict()}, recipe, state)
    return recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colorizer") / "run"
    small_run(folder, settings=("ema.half_life=100",))
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_a_network_of_every_recipe_can_be_saved_and_loaded(name: str, tmp_path: Path) -> None:
    recipe = scaled_run(name, tmp_path / "run")
    network = colortrain.load(tmp_path / "run")
    network.save(tmp_path / "exported")
    exported = colortrain.load(tmp_path / "exported")
    assert exported.description == network.description
    assert (
        exported.description.recipe,
        exported.description.images,
        exported.description.step,
    ) == (
        name,
        24,
        6,
    )
    trained, loaded = (
        load_generator(tmp_path / "run")[0].state_dict(),
        exported.generator.state_dict(),
    )
    assert list(trained) == list(loaded)
    assert all(torch.equal(trained[key], loaded[key]) for key in trained)
    cat = photograph("chelsea")
    coloured = exported.colorize(cat)
    assert np.array_equal(coloured, network.colorize(cat))
    assert coloured.shape == cat.shape
    assert np.ptp(coloured.astype(int), axis=2).max() > 0
    assert exported.description.test_dropout == recipe.test_dropout


def test_the_lightness_is_kept_and_the_original_colours_are_ignored(run: Path) -> None:
    network = colortrain.load(run, ema=False)
    cat = photograph("chelsea")
    coloured = network.colorize(cat, dropout=False)
    change = np.abs(rgb_to_lab(coloured)[0] - rgb_to_lab(cat)[0])
    assert change.max() <= 0.3
    gray = np.asarray(Image.fromarray(cat).convert("L"))
    one_channel = network.colorize(gray, dropout=False)
    three_channels = network.colorize(np.stack([gray] * 3, axis=2), dropout=False)
    assert np.array_equal(one_channel, three_channels)
    assert one_channel.shape == cat.shape


def test_a_pil_image_of_any_mode_returns_an_rgb_image(run: Path) -> None:
    network = colortrain.load(run)
    cat = Image.fromarray(photograph("chelsea"))
    coloured = network.colorize(cat, dropout=False)
    assert isinstance(coloured, Image.Image)
    assert (coloured.mode, coloured.size) == ("RGB", cat.size)
    assert np.array_equal(np.asarray(coloured), network.colorize(np.asarray(cat), dropout=False))
    clear = cat.convert("RGBA")
    clear.putalpha(0)
    white = network.colorize(np.full_like(photograph("chelsea"), 255), dropout=False)
    assert np.array_equal(np.asarray(network.colorize(clear, dropout=False)), white), (
        "transparent is white"
    )
    for mode in ("L", "P", "1", "CMYK", "I;16"):
        assert network.colorize(cat.convert("L").convert(mode)).size == cat.size


def test_dropout_depends_on_the_recipe_and_the_seed(run: Path) -> None:
    network, cat = colortrain.load(run), photograph("chelsea")
    assert network.description.test_dropout
    options: list[dict[str, Any]] = [{}, {"seed": 0}, {"seed": 1}, {"dropout": False}]
    one, same, other, off = (network.colorize(cat, **each) for each in options)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, off)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros(4, np.uint8),
        [[1]],
    ],
    ids=["float", "four channels", "empty", "one dimension", "list"],
)
def test_other_arrays_raise_an_error_with_the_expected_shape(run: Path, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\) or \(H, W\)"):
        colortrain.load(run).colorize(wrong)


def test_averaged_weights_are_the_default(run: Path, tmp_path: Path) -> None:
    averaged, last = colortrain.load(run), colortrain.load(run, ema=False)
    assert (averaged.description.weights, last.description.weights) == ("ema", "generator")
    key = "head.weight"
    assert torch.equal(averaged.generator.state_dict()[key], last.generator.state_dict()[key] * 0.5)
    averaged.save(tmp_path / "exported")
    exported = colortrain.load(tmp_path / "exported")
    assert torch.equal(exported.generator.state_dict()[key], averaged.generator.state_dict()[key])
    for wrong in ({"ema": False}, {"checkpoint": 3}, {"checkpoint": "best"}):
        with pytest.raises(UserError, match="is an exported folder with a single network"):
            colortrain.load(tmp_path / "exported", **wrong)


def test_invalid_exports_are_refused_on_loading(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    colortrain.load(run).save(folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    original, document = weights.read_bytes(), json.loads(config.read_text())
    weights.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    with pytest.raises(UserError, match=r"model\.safetensors is missing or damaged"):
        colortrain.load(folder)
    weights.write_bytes(original)
    for change, message in (
        ({"format": 2}, "format 2, but this version reads format 1"),
        ({"library": "diffusers"}, "has diffusers format 1"),
        ({"size": "large"}, "size: must be a whole number"),
        ({"generator": {"type": "Transformer"}}, "unknown type 'Transformer'"),
        ({"generator": {**document["generator"], "base_channels": 5}}, "do not fit"),
    ):
        config.write_text(json.dumps({**document, **change}))
        with pytest.raises(UserError, match=message) as raised:
            colortrain.load(folder)
        assert "\n" not in str(raised.value)
    config.write_text("[]")
    with pytest.raises(UserError, match="was not written by `colortrain export`"):
        colortrain.load(folder)
    with pytest.raises(UserError, match="contains no network: give a run"):
        colortrain.load(tmp_path)


def test_the_description_does_not_hold_the_initial_weights() -> None:
    recipe = get_recipe("nampouri_resnet18")
    about = describe(recipe, {"step": 1}, "generator")
    assert to_plain(recipe.generator)["pretrained"] == "imagenet"
    assert to_plain(about.generator)["pretrained"] is None
    assert isinstance(Colorizer(about.generator.build(), about).generator, torch.nn.Module)


def test_importing_the_package_does_not_import_torch() -> None:
    code = (
        "import sys, colortrain; assert 'torch' not in sys.modules; "
        "colortrain.load; assert 'torch' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        colortrain.paint  # noqa: B018
