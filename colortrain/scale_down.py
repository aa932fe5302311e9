"""Any recipe for fewer pixels and fewer channels: as deep as those pixels allow, all else as published."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from colortrain.losses.perceptual import Perceptual
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.recipe import Critic, Generator, Recipe

DEPTHS = ("levels", "depth", "blocks", "strided_layers")  # what networks call their halvings

Part = TypeVar("Part", bound=Generator | Critic)


def scaled_down(recipe: Recipe, size: int, base_channels: int) -> Recipe:
    """`recipe` at `size` pixels with `base_channels`; raises `ValueError` if its networks cannot be made to fit."""
    generator, critic = (
        fitted(recipe.generator, size, base_channels),
        fitted(recipe.critic, size, base_channels),
    )
    return dataclasses.replace(recipe, size=size, generator=generator, critic=critic)


def without_downloads(recipe: Recipe) -> Recipe:
    """`recipe` with random numbers where it starts from, or measures by, weights that others have trained."""
    generator = recipe.generator
    if isinstance(generator, ResNet18UNetConfig):
        generator = dataclasses.replace(generator, pretrained=None)
    terms = tuple(
        dataclasses.replace(term, weights="random") if isinstance(term, Perceptual) else term
        for term in recipe.objective.reconstruction
    )
    objective = dataclasses.replace(recipe.objective, reconstruction=terms)
    return dataclasses.replace(recipe, generator=generator, objective=objective)


def fitted(part: Part, size: int, base_channels: int) -> Part:
    """A network's configuration with `base_channels`, and as many halvings less as `size` pixels ask for."""
    names = {field.name for field in dataclasses.fields(part)}
    if "base_channels" in names:
        part = dataclasses.replace(part, base_channels=base_channels)
    depth = next((name for name in DEPTHS if name in names), None)
    while depth and getattr(part, depth) > 1 and not _passes(part, size):
        part = dataclasses.replace(part, **{depth: getattr(part, depth) - 1})
    part.check_size(size)
    return part


def _passes(part: Generator | Critic, size: int) -> bool:
    try:
        part.check_size(size)
    except ValueError:
        return False
    return True
