"""Scaling recipes down: as deep as the size allows, everything else unchanged."""

from __future__ import annotations

import dataclasses

import pytest

from colortrain.losses.perceptual import Perceptual
from colortrain.models.pix2pix import UNetConfig
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.recipes import RECIPES, get_recipe
from colortrain.scale_down import (
    fit_to_size,
    scaled_down,
    without_downloads,
)


@pytest.mark.parametrize("name", RECIPES)
def test_only_size_and_networks_change(name: str) -> None:
    recipe = without_downloads(get_recipe(name))
    small = scaled_down(recipe, 64, 4)
    small.check()
    assert {config.base_channels for config in small.network_configs.values()} == {4}
    assert (small.critic is None) == (recipe.critic is None)
    unchanged = {"size": recipe.size, "generator": recipe.generator, "critic": recipe.critic}
    assert dataclasses.replace(small, **unchanged) == recipe  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "levels"), [(256, 8), (512, 8), (64, 6), (48, 4), (4, 2)])
def test_a_network_is_as_deep_as_the_size_allows_but_never_deeper(size: int, levels: int) -> None:
    assert fit_to_size(UNetConfig(), size, 4) == UNetConfig(base_channels=4, levels=levels)


def test_a_size_that_fits_no_depth_raises() -> None:
    with pytest.raises(ValueError, match="got 33"):
        fit_to_size(UNetConfig(), 33, 4)


def test_without_downloads_nothing_is_pretrained() -> None:
    generator = without_downloads(get_recipe("nampouri_resnet18")).generator
    assert isinstance(generator, ResNet18UNetConfig)
    assert generator.pretrained is None
    terms = without_downloads(get_recipe("drouilhet_progan")).objective.reconstruction
    assert [term.weights for term in terms if isinstance(term, Perceptual)] == ["random"]
    assert without_downloads(get_recipe("nampouri_unet")) == get_recipe("nampouri_unet")
