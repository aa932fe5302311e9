"""Every recipe, thin, on real photographs: it trains what it should, saves, loads, colours, and passes every door."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from colortrain.distributed.setup import make_accelerator
from colortrain.lab import stored_to_lab
from colortrain.metrics.evaluate import generate
from colortrain.recipe import Recipe, load_recipe, save_recipe
from colortrain.recipes import RECIPES, get_recipe
from colortrain.runs.checkpoint import load_generator
from colortrain.runs.folder import TrainingData, open_data
from colortrain.training.trainer import Trainer
from tests.support.processes import ROOT, command, environment, run_command
from tests.support.small_shard_set import small_set
from tests.support.thin_recipes import thin

Sets = Callable[[int], Path]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """A shard set of 12 photographs by size, each written once."""
    root = tmp_path_factory.mktemp("sets")

    def of_size(size: int) -> Path:
        folder = root / str(size)
        return (
            folder
            if folder.is_dir()
            else small_set(folder, size=size, count=12, splits=("train", "val"))
        )

    return of_size


def journal(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the trained kernels and matrices: a bias before a norm has no gradient, so it may stand still."""
    found = {
        name: value.detach().clone()
        for name, value in network.named_parameters()
        if value.requires_grad
    }
    return {name: value for name, value in found.items() if value.ndim > 1}


def moved(before: dict[str, torch.Tensor], network: torch.nn.Module) -> set[bool]:
    """Which answers the weights give to the question whether they have changed."""
    return {not torch.equal(value, before[name]) for name, value in weights(network).items()}


def turns(recipe: Recipe, data: TrainingData) -> tuple[bool, bool]:
    """Whether the critic learns in this run, and whether the generator hears of it, by the recipe's own words."""
    steps = range(recipe.total_images(len(data.train)) // recipe.batch_size)
    whole = recipe.total_images(len(data.train))
    an_image = recipe.span / whole if recipe.span else 1 / len(data.train)
    epochs = [step * recipe.batch_size * an_image for step in steps]
    objective = recipe.objective
    return (
        any(epoch >= objective.critic_from for epoch in epochs),
        any(objective.adversarial_weight.at(epoch) for epoch in epochs),
    )


@pytest.mark.parametrize("name", RECIPES)
def test_trains_what_it_should_and_colours_the_same_after_loading(
    name: str, sets: Sets, tmp_path: Path
) -> None:
    recipe = get_recipe(name)
    recipe = thin(recipe, steps=10) if recipe.span else thin(recipe)  # to what comes in late
    recipe.check()
    data = open_data(sets(recipe.size), recipe)
    trainer = Trainer(recipe, data, tmp_path / "run", make_accelerator())
    learns, heard = turns(recipe, data)
    generator, critic = weights(trainer.generator.module), weights(trainer.critic.module)
    trainer.train()
    assert moved(generator, trainer.generator.module) == {True}
    assert moved(critic, trainer.critic.module) == {learns}
    assert all(value.isfinite().all() for value in trainer.generator.module.state_dict().values())
    losses = [line["losses"] for line in journal(tmp_path / "run") if line["kind"] == "train"]
    assert all(math.isfinite(value) for line in losses for value in line.values())
    assert any("adversarial" in line for line in losses) == heard
    assert any("critic" in line for line in losses) == learns
    loaded, read, _ = load_generator(tmp_path / "run", ema=False)
    assert read == recipe
    lab = stored_to_lab(torch.from_numpy(data.train.read([0, 1])))
    pictures = [
        generate(network, recipe.codec, lab, dropout=recipe.test_dropout)
        for network in (trainer.generator.module.train(), loaded)
    ]
    assert torch.equal(*pictures)
    assert torch.equal(pictures[0][:, :1], lab[:, :1])
    assert pictures[0].shape == lab.shape
    assert pictures[0][:, 1:].std() > 0


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("change", [lambda recipe: recipe, thin], ids=["published", "thin"])
def test_json_and_back(name: str, change: Callable[[Recipe], Recipe], tmp_path: Path) -> None:
    recipe = change(get_recipe(name))
    recipe.check()
    save_recipe(recipe, tmp_path / "recipe.json")
    assert load_recipe(tmp_path / "recipe.json") == recipe


@pytest.mark.distributed
def test_every_recipe_passes_every_door_on_two_processes(sets: Sets, tmp_path: Path) -> None:
    shards = {recipe.size: sets(recipe.size) for recipe in map(thin, map(get_recipe, RECIPES))}
    done = run_command(
        "tests.support.step_all_recipes", [tmp_path, shards[32].parent, *RECIPES], processes=2
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for name in RECIPES:
        lines = journal(tmp_path / name / "run")
        assert [line["world"] for line in lines if line["kind"] == "start"] == [2]
        assert lines[-1]["kind"] == "end"
        document = json.loads((tmp_path / name / "run" / "evaluation.json").read_text())
        assert (document["recipe"], document["samples"]) == (name, 4)
        assert all(math.isfinite(value) for value in document["metrics"]["l1"].values())
        with Image.open(tmp_path / name / "out" / "cat.png") as picture:
            assert picture.size == (120, 90)
            assert np.ptp(np.asarray(picture, np.int16), axis=2).max() > 0  # in colour


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", RECIPES)
def test_published_size_takes_a_turn(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = command("tests.support.full_size_recipe", [name])
    done = subprocess.run(
        line, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=850, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert all(math.isfinite(value) for value in found["losses"].values())
    with capsys.disabled():
        print(
            f"\n{name}: {found['size']} px, batch {found['batch_size']}, {found['steps']} steps of "
            f"{found['seconds']:.1f} s on {found['threads']} threads, peak {found['peak_mb']:,} MB"
        )
