"""Every recipe, scaled down, on photographs, in one process and through the commands.

It trains the networks it should, saves, loads and colours.
"""

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
from tests.support.scaled_recipes import scaled
from tests.support.small_shard_set import small_set

Sets = Callable[[int], Path]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """Return a function that writes a shard set of 12 photographs, once per size."""
    root = tmp_path_factory.mktemp("sets")

    def of_size(size: int) -> Path:
        folder = root / str(size)
        return (
            folder
            if folder.is_dir()
            else small_set(folder, size=size, count=12, splits=("train", "val"))
        )

    return of_size


def read_metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of the trained kernels and matrices.

    A bias before a norm has no gradient, so vectors may stay unchanged.
    """
    result = {
        name: value.detach().clone()
        for name, value in network.named_parameters()
        if value.requires_grad
    }
    return {name: value for name, value in result.items() if value.ndim > 1}


def changed(before: dict[str, torch.Tensor], network: torch.nn.Module) -> set[bool]:
    """Return the set of whether each weight has changed."""
    return {not torch.equal(value, before[name]) for name, value in weights(network).items()}


def active_parts(recipe: Recipe, data: TrainingData) -> tuple[bool, bool]:
    """Return whether the critic is trained and whether the generator uses its scores.

    Both according to the recipe's schedules.
    """
    steps = range(recipe.total_images(len(data.train)) // recipe.batch_size)
    total = recipe.total_images(len(data.train))
    epochs_per_image = recipe.span / total if recipe.span else 1 / len(data.train)
    epochs = [step * recipe.batch_size * epochs_per_image for step in steps]
    objective = recipe.objective
    return (
        recipe.critic is not None and any(epoch >= objective.critic_from for epoch in epochs),
        any(objective.adversarial_weight.at(epoch) for epoch in epochs),
    )


@pytest.mark.parametrize("name", RECIPES)
def test_training_then_loading_reproduces_the_images(name: str, sets: Sets, tmp_path: Path) -> None:
    recipe = get_recipe(name)
    # ten steps, so that terms of the last fifth of a span take part
    recipe = scaled(recipe, steps=10) if recipe.span else scaled(recipe)
    recipe.check()
    data = open_data(sets(recipe.size), recipe)
    trainer = Trainer(recipe, data, tmp_path / "run", make_accelerator())
    critic_trains, uses_critic = active_parts(recipe, data)
    before = {name: weights(network.module) for name, network in trainer.networks.items()}
    assert set(before) == set(recipe.network_configs)
    trainer.train()
    trains = {"generator": True, "critic": critic_trains}
    for name, network in trainer.networks.items():
        assert changed(before[name], network.module) == {trains[name]}
    assert all(value.isfinite().all() for value in trainer.generator.module.state_dict().values())
    losses = [line["losses"] for line in read_metrics(tmp_path / "run") if line["kind"] == "train"]
    assert all(math.isfinite(value) for line in losses for value in line.values())
    assert any("adversarial" in line for line in losses) == uses_critic
    assert any("critic" in line for line in losses) == critic_trains
    loaded, read, _ = load_generator(tmp_path / "run", ema=False)
    assert read == recipe
    lab = stored_to_lab(torch.from_numpy(data.train.read([0, 1])))
    images = [
        generate(network, recipe.codec, lab, dropout=recipe.test_dropout)
        for network in (trainer.generator.module.train(), loaded)
    ]
    assert torch.equal(*images)
    assert torch.equal(images[0][:, :1], lab[:, :1])
    assert images[0].shape == lab.shape
    assert images[0][:, 1:].std() > 0


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("change", [lambda recipe: recipe, scaled], ids=["published", "scaled"])
def test_json_round_trip(name: str, change: Callable[[Recipe], Recipe], tmp_path: Path) -> None:
    recipe = change(get_recipe(name))
    recipe.check()
    save_recipe(recipe, tmp_path / "recipe.json")
    assert load_recipe(tmp_path / "recipe.json") == recipe


@pytest.mark.distributed
def test_every_recipe_passes_every_command_on_two_processes(sets: Sets, tmp_path: Path) -> None:
    shards = {recipe.size: sets(recipe.size) for recipe in map(scaled, map(get_recipe, RECIPES))}
    done = run_command(
        "tests.support.step_all_recipes", [tmp_path, shards[32].parent, *RECIPES], processes=2
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for name in RECIPES:
        lines = read_metrics(tmp_path / name / "run")
        assert [line["world"] for line in lines if line["kind"] == "start"] == [2]
        assert lines[-1]["kind"] == "end"
        document = json.loads((tmp_path / name / "scores.json").read_text())
        assert (document["recipe"], document["samples"]) == (name, 4)
        assert all(math.isfinite(value) for value in document["metrics"]["l1"].values())
        with Image.open(tmp_path / name / "out" / "cat.png") as image:
            assert image.size == (120, 90)
            assert (
                np.ptp(np.asarray(image, np.int16), axis=2).max() > 0
            )  # the images are not grayscale


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", RECIPES)
def test_one_round_at_published_size(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = command("tests.support.full_size_recipe", [name])
    done = subprocess.run(
        line, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=850, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert all(math.isfinite(value) for value in result["losses"].values())
    with capsys.disabled():
        print(
            f"\n{name}: {result['size']} px, batch {result['batch_size']}, "
            f"{result['steps']} steps of {result['seconds']:.1f} s on "
            f"{result['threads']} threads, peak {result['peak_mb']:,} MB"
        )
