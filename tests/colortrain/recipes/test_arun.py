"""arun's recipes: published values, and whether the critic affects the generator."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from colortrain.distributed.setup import make_accelerator
from colortrain.models.global_critic import GlobalCriticConfig
from colortrain.recipes import get_recipe
from colortrain.runs.folder import open_data
from colortrain.training.trainer import Trainer
from tests.support.scaled_recipes import scaled
from tests.support.small_shard_set import small_set


@pytest.mark.parametrize(
    ("name", "uses_critic"), [("arun_wgan_gp", False), ("arun_wgan_gp_adversarial", True)]
)
def test_critic_changes_the_generator_only_in_the_adversarial_recipe(
    name: str, uses_critic: bool, tmp_path: Path
) -> None:
    """With two different critics, equation 6 gives the same generator, bit for bit."""
    recipe, shards = scaled(get_recipe(name)), small_set(tmp_path / "shards", count=4)
    generators = []
    for channels in (4, 6):
        critic = dataclasses.replace(GlobalCriticConfig(), base_channels=channels)
        trainer = Trainer(
            dataclasses.replace(recipe, critic=critic),
            open_data(shards, recipe),
            tmp_path / f"{channels}",
            make_accelerator(),
        )
        trainer.train()
        generators.append(trainer.generator.module.state_dict())
    same = all(torch.equal(value, generators[1][name]) for name, value in generators[0].items())
    assert same == (not uses_critic)


def test_published_values() -> None:
    recipe = get_recipe("arun_wgan_gp")
    assert recipe.total_images(5000) // recipe.batch_size == 750_000
    assert recipe.objective.adversarial_weight.at(0) == 0
    penalties = recipe.objective.penalties
    assert [(p.name, p.weight.at(0), p.points, p.wrt) for p in penalties] == [
        ("gp", 10, "interpolated", "colour"),
        ("r1", 10, "interpolated", "colour"),
    ]
    other = get_recipe("arun_wgan_gp_adversarial")
    assert other.objective.adversarial_weight.at(0) == 1
    assert dataclasses.replace(other, name=recipe.name, objective=recipe.objective) == recipe
