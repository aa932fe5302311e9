"""nampouri's recipes: published values, and what the two have in common."""

from __future__ import annotations

import dataclasses

import torch

from colortrain.losses.adversarial import BCE
from colortrain.losses.reconstruction import L1
from colortrain.models.initialise import num_parameters
from colortrain.recipes import get_recipe


def test_published_values() -> None:
    recipe = get_recipe("nampouri_unet")
    assert recipe.total_images(8000) // recipe.batch_size == 150_000  # section 5.2
    assert recipe.objective.adversarial == BCE(critic_factor=0.5)  # equations 14-17
    assert [(type(t), t.weight.at(0)) for t in recipe.objective.reconstruction] == [(L1, 100)]
    for adam in (recipe.generator_adam, recipe.critic_adam):
        assert (adam.lr, adam.betas) == (2e-4, (0.5, 0.999))
    assert recipe.test_dropout


def test_parameter_counts() -> None:
    counts = []
    for name in ("nampouri_unet", "nampouri_resnet18"):
        recipe = get_recipe(name)
        with torch.device("meta"):
            networks = [config.build() for config in recipe.network_configs.values()]
        counts.append([num_parameters(network) for network in networks])
    assert counts == [[54_410_370, 2_765_633], [14_720_578, 2_765_633]]


def test_recipes_differ_in_the_generator_and_its_dropout() -> None:
    unet, resnet = get_recipe("nampouri_unet"), get_recipe("nampouri_resnet18")
    assert not resnet.test_dropout
    same = dataclasses.replace(
        resnet,
        name=unet.name,
        headline=unet.headline,
        generator=unet.generator,
        test_dropout=unet.test_dropout,
    )
    assert same == unet
