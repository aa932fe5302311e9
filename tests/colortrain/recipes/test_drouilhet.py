"""Drouilhet's recipes: published values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from colortrain.losses.adversarial import BCE
from colortrain.losses.perceptual import Perceptual
from colortrain.losses.rebalanced import RebalancedL1
from colortrain.models.deep_unet import DeepUNetConfig
from colortrain.models.norms import PixelNorm
from colortrain.models.square_critic import SquareCriticConfig
from colortrain.recipes import RECIPES, get_recipe


def on_meta(config: DeepUNetConfig | SquareCriticConfig) -> nn.Module:
    with torch.device("meta"):
        return config.build()


def test_published_values_of_the_gan() -> None:
    recipe = get_recipe("drouilhet_gan")
    assert (recipe.generator_adam.lr, recipe.critic_adam.lr) == (4e-4, 5e-5)  # section 4.1
    adversarial_loss = recipe.objective.adversarial
    assert isinstance(adversarial_loss, BCE)
    undecided, best = torch.zeros(1), torch.tensor([1.3863])  # logit(0.8)
    assert adversarial_loss.critic(undecided, undecided).item() == pytest.approx(0.693, abs=1e-3)
    # the lowest possible value; the paper reports 0.6-0.7 (section 4.1)
    assert adversarial_loss.critic(best, -best).item() == pytest.approx(0.500, abs=1e-3)
    term = recipe.objective.reconstruction[0]
    assert isinstance(term, RebalancedL1)
    assert (term.weight.at(26), term.mode, term.largest, term.least) == (70, "populated", 5, 0.5)


def test_l1_weight_of_the_wgan_follows_the_epoch() -> None:
    recipe = get_recipe("drouilhet_wgan_gp")
    at = recipe.objective.reconstruction[0].weight.at
    weights = [at(epoch) for epoch in (0, 18.99, 19, 25.99, 26, 40)]
    assert weights == [70, 70, 10, 10, 30, 30]  # section 7.5
    assert recipe.n_critic == 5
    assert recipe.objective.penalties[0].weight.at(0) == 10


def test_progan_has_no_l1() -> None:
    recipe = get_recipe("drouilhet_progan")
    assert [type(term) for term in recipe.objective.reconstruction] == [Perceptual]
    assert recipe.objective.reconstruction[0].weight.at(0) == 100
    norms = {type(module) for module in on_meta(recipe.generator).modules()}  # type: ignore[arg-type]
    assert PixelNorm in norms
    assert nn.BatchNorm2d not in norms


@pytest.mark.parametrize(
    "name", [name for name in RECIPES if name.startswith(("drouilhet", "nampouri_r"))]
)
def test_recipes_are_consistent(name: str) -> None:
    get_recipe(name).check()
