"""Scale a recipe down to smaller images and fewer channels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

from colortrain.losses.perceptual import Perceptual
from colortrain.models.registry import CriticConfig, GeneratorConfig
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.recipe import Recipe

DEPTH_FIELDS = (
    "levels",
    "depth",
    "blocks",
    "strided_layers",
)  # the number of stride-2 levels in a config

ConfigT = TypeVar("ConfigT", bound=GeneratorConfig | CriticConfig)


def scaled_down(recipe: Recipe, size: int, base_channels: int | None) -> Recipe:
    """Return a copy of `recipe` for images of `size` px, with smaller networks.

    base_channels: width of the networks, or None to keep it. Raises ValueError if a
    network cannot be made to fit the image size.
    """
    generator = fit_to_size(recipe.generator, size, base_channels)
    critic = recipe.critic and fit_to_size(recipe.critic, size, base_channels)
    return dataclasses.replace(recipe, size=size, generator=generator, critic=critic)


@dataclass(frozen=True)
class PretrainedWeights:
    """Which weights recipes use whose systems need pretrained ones.

    vgg16: of the perceptual loss, "imagenet", a file or "random"; resnet18: of
    generators around a ResNet-18, "imagenet", a file or None.
    """

    vgg16: str = "random"
    resnet18: str | None = None


WITHOUT_DOWNLOADS = PretrainedWeights()


def with_weights(recipe: Recipe, weights: PretrainedWeights) -> Recipe:
    """Return a copy of `recipe` that uses the given pretrained weights."""
    generator = recipe.generator
    if isinstance(generator, ResNet18UNetConfig):
        generator = dataclasses.replace(generator, pretrained=weights.resnet18)
    terms = tuple(
        dataclasses.replace(term, weights=weights.vgg16) if isinstance(term, Perceptual) else term
        for term in recipe.objective.reconstruction
    )
    objective = dataclasses.replace(recipe.objective, reconstruction=terms)
    return dataclasses.replace(recipe, generator=generator, objective=objective)


def without_downloads(recipe: Recipe) -> Recipe:
    """Return a copy of `recipe` that uses random weights instead of pretrained ones."""
    return with_weights(recipe, WITHOUT_DOWNLOADS)


def fit_to_size(config: ConfigT, size: int, base_channels: int | None) -> ConfigT:
    """Return a network's config, changed to fit images of `size` x `size` pixels.

    base_channels: its width, or None to keep it. Its depth is reduced only as far as
    necessary. Raises ValueError if no depth fits.
    """
    names = {field.name for field in dataclasses.fields(config)}
    if base_channels and "base_channels" in names:
        config = dataclasses.replace(config, base_channels=base_channels)
    depth = next((name for name in DEPTH_FIELDS if name in names), None)
    min_depth = getattr(config, "min_halvings", 1)
    while depth and getattr(config, depth) > min_depth and not _accepts(config, size):
        config = dataclasses.replace(config, **{depth: getattr(config, depth) - 1})
    config.check_size(size)
    return config


def _accepts(config: GeneratorConfig | CriticConfig, size: int) -> bool:
    try:
        config.check_size(size)
    except ValueError:
        return False
    return True
