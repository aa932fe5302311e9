"""How many operations recipes start: starting small ones takes a GPU longest."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from colortrain.distributed import muon
from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.trainable import TrainableNetwork
from colortrain.recipe import Adam, Recipe
from colortrain.recipes import get_recipe
from colortrain.scale_down import scaled_down
from launch.benchmark.loading.shard_sets import write_noise_set
from launch.benchmark.training.device_counts import OperationCounter
from launch.benchmark.training.setup import TrainingSetup

MOST_PER_UPDATE = 300


def operations_of_update(module: nn.Module, adam: Adam, compute: ComputeConfig) -> int:
    """Return how many operations the second update of a network starts."""
    compute.apply_to(module, compiles=False, recomputes=False)
    network = TrainableNetwork(module, adam, Accelerator(cpu=True), compute)
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    network.update()
    with OperationCounter("cpu") as counter:
        network.update()
    return counter.operations


@pytest.mark.parametrize("name", ["flagship", "flagship_calm"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_updates_at_published_width(
    name: str, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: a fused Adam, and large batches of matrices."""
    monkeypatch.setitem(muon.MAX_NUMBERS, "cpu", muon.MAX_NUMBERS["cuda"])
    recipe = get_recipe(name)
    generator, critic = recipe.build_networks()
    assert critic is not None
    compute = ComputeConfig(fused_adam=True, channels_last=channels_last)
    counts = [
        operations_of_update(generator, recipe.generator_adam, compute),
        operations_of_update(critic, recipe.critic_adam, compute),
    ]
    num_weights = len(muon.hidden_weights(generator))
    assert num_weights < counts[0] <= MOST_PER_UPDATE
    assert 0 < counts[1] <= MOST_PER_UPDATE


def operations_of_step(recipe: Recipe, part: float, scratch: Path) -> int:
    """Return how many operations a step starts after `part` of the run."""
    write_noise_set(scratch / "shards", recipe.size, 4)
    recipe = dataclasses.replace(recipe, batch_size=2, images=2000)
    setup = TrainingSetup(recipe, (str(scratch / "shards"),), scratch)
    trainer = setup.make_trainer("run", compute=ComputeConfig(fused_adam=True))
    trainer.step = int(part * 1000)
    trainer.images = 2 * trainer.step
    with closing(trainer.loader.batches()) as batches:
        trainer.take_step(next(batches))
        with OperationCounter("cpu") as counter:
            trainer.take_step(next(batches))
    return counter.operations


@pytest.mark.parametrize(
    ("name", "part", "most"),
    [("nampouri_unet", 0.5, 424), ("flagship", 0.5, 556), ("flagship", 0.9, 1209)],
)
def test_steps_in_float32(
    name: str, part: float, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits are what steps start today, on the CPU; the width does not matter."""
    monkeypatch.setitem(muon.MAX_NUMBERS, "cpu", muon.MAX_NUMBERS["cuda"])
    recipe = get_recipe(name)
    recipe = scaled_down(recipe, size=recipe.size, base_channels=8)
    counted = operations_of_step(recipe, part, tmp_path)
    assert most / 2 < counted <= most
