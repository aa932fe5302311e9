"""Every recipe by name; `RECIPES[name]()` is a full recipe."""

from __future__ import annotations

from collections.abc import Callable

from colortrain.recipe import Recipe
from colortrain.recipes.nampouri import nampouri_unet
from shards.errors import unknown

RECIPES: dict[str, Callable[[], Recipe]] = {
    "nampouri_unet": nampouri_unet,
}


def get_recipe(name: str) -> Recipe:
    """The recipe called `name`; an unknown name raises `UserError` that lists the valid ones, nearest first."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]()
