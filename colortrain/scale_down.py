"""Scale a recipe down to fewer pixels and channels.

The networks are made as deep as the size allows; everything else is unchanged.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from colortrain.losses.perceptual import Perceptual
from colortrain.models.registry import CriticConfig, GeneratorConfig
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.recipe import Recipe

DEPTH_FIELDS = ("levels", "depth", "blocks", "strided_layers")  # count halvings in a config

ConfigT = TypeVar("ConfigT", bound=GeneratorConfig | CriticConfig)


def scaled_down(recipe: Recipe, size: int, base_channels: int) -> Recipe:
    """Return `recipe` at `size` pixels with `base_channels`.

    Raises `ValueError` if its networks cannot be made to fit.
    """
    generator = fit_to_size(recipe.generator, size, base_channels)
    critic = recipe.critic and fit_to_size(recipe.critic, size, base_channels)
    return dataclasses.replace(recipe, size=size, generator=generator, critic=critic)


def without_downloads(recipe: Recipe) -> Recipe:
    """Return `recipe` with random instead of pretrained weights.

    This concerns the generator's initial weights and the network of the perceptual
    loss.
    """
    generator = recipe.generator
    if isinstance(generator, ResNet18UNetConfig):
        generator = dataclasses.replace(generator, pretrained=None)
    terms = tuple(
        dataclasses.replace(term, weights="random") if isinstance(term, Perceptual) else term
        for term in recipe.objective.reconstruction
    )
    objective = dataclasses.replace(recipe.objective, reconstruction=terms)
    return dataclasses.replace(recipe, generator=generator, objective=objective)


def fit_to_size(part: ConfigT, size: int, base_channels: int) -> ConfigT:
    """Return a network's config with `base_channels`, as deep as `size` px allow.

    It is never made deeper. Raises `ValueError` if no depth fits.
    """
    names = {field.name for field in dataclasses.fields(part)}
    if "base_channels" in names:
        part = dataclasses.replace(part, base_channels=base_channels)
    depth = next((name for name in DEPTH_FIELDS if name in names), None)
    least = getattr(part, "min_halvings", 1)
    while depth and getattr(part, depth) > least and not _accepts(part, size):
        part = dataclasses.replace(part, **{depth: getattr(part, depth) - 1})
    part.check_size(size)
    return part


def _accepts(part: GeneratorConfig | CriticConfig, size: int) -> bool:
    try:
        part.check_size(size)
    except ValueError:
        return False
    return True
