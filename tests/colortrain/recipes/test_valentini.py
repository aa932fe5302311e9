"""valentini's recipes: the critics, the grid of overrides, published differences."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from colortrain.losses.adversarial import BCE, Wasserstein
from colortrain.models.shallow_unet import ShallowUNet, ShallowUNetConfig
from colortrain.recipe import override
from colortrain.recipes import get_recipe

NAMES = ("valentini_cgan", "valentini_wgan", "valentini_wgan_literal")


def on_meta(config: ShallowUNetConfig) -> ShallowUNet:
    with torch.device("meta"):
        return config.build()


@pytest.mark.parametrize("name", NAMES)
def test_critic_has_no_norm_first_and_last(name: str) -> None:
    """Section III: no norm in the first and last block, no activation at the end."""
    recipe = get_recipe(name)
    assert recipe.critic is not None
    with torch.device("meta"):
        network = recipe.critic.build()
    norm = "InstanceNorm2d" if recipe.objective.penalties else "BatchNorm2d"
    assert [type(layer).__name__ for layer in network.get_submodule("layers").children()] == [
        "Conv2d",
        "LeakyReLU",
        *["Conv2d", norm, "LeakyReLU"] * 3,
        "Conv2d",
    ]
    images = (
        torch.empty(2, 1, 256, 256, device="meta"),
        torch.empty(2, 2, 256, 256, device="meta"),
    )
    assert network(*images).shape == (2, 1, 30, 30)


def test_critics_with_a_penalty_do_not_mix_images() -> None:
    torch.manual_seed(0)
    L, colour = torch.randn(3, 1, 32, 32), torch.randn(3, 2, 32, 32)
    for name, apart in zip(NAMES, (False, True, True), strict=True):
        config = override(get_recipe(name), ["critic.base_channels=4"]).critic
        assert config is not None
        critic = config.build().train()
        together = critic(L, colour)[:1]
        assert torch.allclose(together, critic(L[:1], colour[:1]), atol=1e-6) == apart


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("weight", ["0", ".1", ".3"])
@pytest.mark.parametrize("name", NAMES[1:])
def test_the_papers_grid_needs_two_overrides(name: str, depth: int, weight: str) -> None:
    recipe = override(
        get_recipe(name), [f"generator.depth={depth}", f"objective.penalties.0.weight={weight}"]
    )
    recipe.check()
    assert isinstance(recipe.generator, ShallowUNetConfig)
    assert len(on_meta(recipe.generator).encoder) == depth
    assert recipe.objective.penalties[0].weight.at(0) == float(weight)


def test_recipes_differ_as_in_the_paper() -> None:
    cgan, wgan, literal = map(get_recipe, NAMES)
    assert isinstance(cgan.generator, ShallowUNetConfig)
    assert isinstance(wgan.generator, ShallowUNetConfig)
    assert (cgan.generator.thick_layers, wgan.generator.thick_layers) == (0, 3)
    assert [type(r.objective.adversarial) for r in (cgan, wgan, literal)] == [BCE, Wasserstein, BCE]
    assert [len(r.objective.penalties) for r in (cgan, wgan, literal)] == [0, 1, 1]
    assert dataclasses.replace(literal, name=wgan.name, objective=wgan.objective) == wgan
