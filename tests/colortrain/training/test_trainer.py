"""The trainer: the average, learning rates, steps in which no network is due."""

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
from tests.support.scaled_recipes import scaled
from tests.support.small_shard_set import small_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=16, splits=("train", "val"))


def make_trainer(shards: Path, run: Path, *changes: str) -> Trainer:
    recipe: Recipe = override(scaled(get_recipe("nampouri_unet"), steps=6), changes)
    return Trainer(recipe, open_data(shards, recipe), run, Accelerator(cpu=True))


def test_the_average_of_half_life_one_batch_halves_the_distance(
    shards: Path, tmp_path: Path
) -> None:
    """Its tensors keep no graph."""
    trainer = make_trainer(shards, tmp_path / "run", "ema.half_life=4")
    assert trainer.ema is not None
    expected = {name: tensor.clone() for name, tensor in trainer.ema.named_parameters()}
    batches = trainer.loader.batches()
    for _ in range(3):
        trainer.take_step(next(batches))
        for name, tensor in trainer.generator.module.named_parameters():
            expected[name] = (expected[name] + tensor.detach()) / 2
    batches.close()
    for name, tensor in trainer.ema.named_parameters():
        torch.testing.assert_close(tensor, expected[name])
        assert tensor.is_leaf
        assert not tensor.requires_grad


def test_learning_rates_follow_the_schedule(shards: Path, tmp_path: Path) -> None:
    """Eight training images in batches of four: an epoch is two steps."""
    trainer = make_trainer(shards, tmp_path / "run", "learning_rate=[[0, 1], [1, 0.5], [2, 0]]")
    lrs = []
    batches = trainer.loader.batches()
    for _ in range(6):
        trainer.take_step(next(batches))
        lrs.append(
            [network.optimizer.param_groups[0]["lr"] for network in trainer.networks.values()]
        )
    batches.close()
    assert lrs == [[2e-4] * 2] * 2 + [[1e-4] * 2] * 2 + [[0.0] * 2] * 2


def test_steps_without_an_update_log_nothing(shards: Path, tmp_path: Path) -> None:
    """The critic is not trained yet, and the generator is due every fifth step."""
    trainer = make_trainer(
        shards, tmp_path / "run", "n_critic=5", "objective.critic_from=100", "log_every=1"
    )
    assert trainer.critic is not None
    before = {name: tensor.clone() for name, tensor in trainer.critic.module.state_dict().items()}
    trainer.train()
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [5]
    critic = dict(trainer.critic.module.named_parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in critic.items())
