"""The loop's own parts: the moving average, rates that follow schedules, and steps in which nobody has a turn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from colortrain.recipe import Recipe, override
from colortrain.recipes import get_recipe
from colortrain.runs.folder import open_data
from colortrain.training.trainer import Trainer
from tests.support.small_shard_set import small_set
from tests.support.thin_recipes import thin


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=16, splits=("train", "val"))


def trainer(shards: Path, run: Path, *changes: str) -> Trainer:
    recipe: Recipe = override(thin(get_recipe("nampouri_unet"), steps=6), changes)
    return Trainer(recipe, open_data(shards, recipe), run, Accelerator(cpu=True))


def test_average_is_the_sum_of_halvings_and_keeps_no_graph(shards: Path, tmp_path: Path) -> None:
    """With a half life of one batch the average moves half the way at every step."""
    training = trainer(shards, tmp_path / "run", "ema.half_life=4")
    assert training.average is not None
    expected = {name: tensor.clone() for name, tensor in training.average.named_parameters()}
    batches = training.loader.batches()
    for _ in range(3):
        training.take_step(next(batches))
        for name, tensor in training.generator.module.named_parameters():
            expected[name] = (expected[name] + tensor.detach()) / 2
    batches.close()
    for name, tensor in training.average.named_parameters():
        torch.testing.assert_close(tensor, expected[name])
        assert tensor.is_leaf
        assert not tensor.requires_grad


def test_rates_follow_the_schedule(shards: Path, tmp_path: Path) -> None:
    """Eight photographs, batches of four: an epoch is two steps."""
    training = trainer(shards, tmp_path / "run", "learning_rate=[[0, 1], [1, 0.5], [2, 0]]")
    rates = []
    batches = training.loader.batches()
    for _ in range(6):
        training.take_step(next(batches))
        rates.append(
            [network.optimizer.param_groups[0]["lr"] for network in training.networks.values()]
        )
    batches.close()
    assert rates == [[2e-4] * 2] * 2 + [[1e-4] * 2] * 2 + [[0.0] * 2] * 2


def test_steps_without_a_turn_are_silent(shards: Path, tmp_path: Path) -> None:
    """The critic rests, and the generator's turn is every fifth step: lines for the first four have nothing to tell."""
    training = trainer(
        shards, tmp_path / "run", "n_critic=5", "objective.critic_from=100", "log_every=1"
    )
    assert training.critic is not None
    before = {name: tensor.clone() for name, tensor in training.critic.module.state_dict().items()}
    training.train()
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [5]
    critic = dict(training.critic.module.named_parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in critic.items())
