"""The recipes of an experiment: size, width, weights, changed fields and intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from colortrain.differences import missing_weights
from colortrain.recipe import Recipe
from colortrain.recipes import RECIPES, get_recipe
from colortrain.scale_down import PretrainedWeights
from launch.experiment.options import Network, unchanged
from launch.experiment.prepare import prepare_recipe
from shards.errors import UserError
from tests.launch.reproduce.cifar import make_options


def prepared(name: str, images: int | None = 1000, **changes: Any) -> Recipe:
    """Return a recipe for 32 px and 8 base channels unless `changes` say otherwise."""
    options = make_options(Path(), **{"base_channels": 8, **changes})
    return prepare_recipe(unchanged(name)[0], options, images, 50_000)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_scaled_down_to_small_images(name: str) -> None:
    recipe = prepared(name)
    recipe.check()
    assert recipe.size == 32
    assert recipe.total_images(1) == 1000
    assert recipe.evaluate_every == recipe.total_steps(1)  # once, at the end


def test_a_size_that_does_not_fit_is_reported_without_a_hint_at_missing_options() -> None:
    with pytest.raises(UserError, match=r"requires a size divisible by .* other recipes") as raised:
        prepared("nampouri_unet", size=33)
    assert "nampouri_unet cannot be trained at 33 px" in str(raised.value)
    assert "set generator" not in str(raised.value)  # these commands have no --set


def test_without_a_width_networks_are_as_published() -> None:
    published = get_recipe("nazeri_gan")
    recipe = prepared("nazeri_gan", base_channels=None, history=True, images=10_000_000)
    assert (recipe.generator, recipe.critic) == (published.generator, published.critic)
    assert (recipe.batch_size, recipe.total_images(1)) == (128, 200 * 50_000)
    assert recipe.plateau == published.plateau
    assert recipe.evaluate_every == 391  # so the rates fall
    epochs = prepared("nazeri_gan", images=None)
    assert epochs.total_images(50_000) == 200 * 50_000


def test_curves_have_ten_points() -> None:
    for steps in (1000, 8112):
        recipe = prepared("nampouri_unet", images=16 * steps, history=True)
        assert -(-steps // recipe.evaluate_every) == 10  # the last one at the end
        assert -(-steps // recipe.log_every) in (198, 200)


def test_a_network_can_have_changed_fields() -> None:
    network = Network(recipe="valentini_wgan", name="deep", settings=("generator.depth=2",))
    recipe = prepare_recipe(network, make_options(Path(), size=64), 1000, 50_000)
    assert recipe.name == "valentini_wgan"
    assert recipe.generator.depth == 2  # type: ignore[union-attr]


def test_the_weights_reach_the_recipes() -> None:
    weights = PretrainedWeights(vgg16="vgg.pth", resnet18="imagenet")
    progan = prepared("drouilhet_progan", weights=weights)
    assert [term.weights for term in progan.objective.reconstruction] == ["vgg.pth"]  # type: ignore[union-attr]
    assert missing_weights(progan) == []
    resnet = prepared("nampouri_resnet18", size=64, base_channels=64, weights=weights)
    assert resnet.generator.pretrained == "imagenet"  # type: ignore[union-attr]
    assert missing_weights(prepared("nampouri_resnet18", size=64, base_channels=16)) == [
        "ResNet-18 without ImageNet weights"
    ]
