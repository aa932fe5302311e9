"""What recipes lack of the systems that their papers describe."""

from __future__ import annotations

import dataclasses

import pytest

from colortrain.differences import differences, missed_phases, missing_weights, stretched
from colortrain.recipe import Plateau
from colortrain.recipes import RECIPES, get_recipe
from colortrain.scale_down import without_downloads

LACKING = {
    "drouilhet_progan": ["random VGG-16"],
    "nampouri_resnet18": ["ResNet-18 without ImageNet weights"],
}


@pytest.mark.parametrize("name", RECIPES)
def test_published_recipes_lack_nothing_but_weights_that_were_left_out(name: str) -> None:
    """Two of the papers' systems use pretrained weights."""
    recipe = get_recipe(name)
    assert differences(recipe, 1000) == []
    assert missing_weights(without_downloads(recipe)) == LACKING.get(name, [])


@pytest.mark.parametrize("name", RECIPES)
def test_in_two_epochs_only_one_recipe_misses_a_change_of_its_schedules(name: str) -> None:
    """The weight of L1 changes at epochs 19 and 26 (section 7 of the paper)."""
    short = dataclasses.replace(get_recipe(name), images=2000)
    missed = {"drouilhet_wgan_gp": ["ends before its schedule changes at epoch 19 and 26"]}
    assert missed_phases(short, 1000) == missed.get(name, [])


def test_a_run_that_reaches_one_change_misses_the_other() -> None:
    recipe = get_recipe("drouilhet_wgan_gp")
    for images, missed in ((19_000, "19 and 26"), (19_001, "26"), (26_000, "26"), (26_001, "")):
        expected = [f"ends before its schedule changes at epoch {missed}"] if missed else []
        assert missed_phases(dataclasses.replace(recipe, images=images), 1000) == expected


def test_stretched_schedules_are_reached_and_named() -> None:
    recipe = dataclasses.replace(get_recipe("drouilhet_wgan_gp"), images=2000)
    (phrase,) = missed_phases(stretched(recipe), 1000)
    assert phrase == f"schedules of {recipe.epochs:g} epochs stretched to the run"
    assert stretched(recipe).span == recipe.epochs
    for name in ("flagship", "nampouri_unet"):
        assert stretched(get_recipe(name)) == get_recipe(name)


def test_rates_that_never_fall_are_named_if_the_run_is_long_enough() -> None:
    """Nazeri et al.'s recipe can reduce them after 30 validations of 391 steps."""
    published = get_recipe("nazeri_gan")
    recipe = dataclasses.replace(published, plateau=Plateau())
    for steps, phrases in ((11_730, []), (11_731, ["learning rates never fall"])):
        long = dataclasses.replace(recipe, images=128 * steps)
        assert differences(long, 50_000) == phrases
    assert differences(dataclasses.replace(published, images=128 * 20_000), 50_000) == []
