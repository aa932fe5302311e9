"""Any recipe made thin enough for a test: few pixels, few channels, few steps, nothing downloaded."""

from __future__ import annotations

import dataclasses

from colortrain.recipe import Recipe
from colortrain.scale_down import scaled_down, without_downloads

SIZES = (32, 64, 128)
CHANNELS = 4


def thin(recipe: Recipe, steps: int | None = None) -> Recipe:
    """`recipe` at the least of `SIZES` it can take, a batch of 4 (of 2 if it was smaller) and a few channels.

    `steps` steps long, by default two turns of both networks. Rates, turns and losses stay, but nothing is downloaded.
    """
    recipe = without_downloads(recipe)
    recipe = scaled_down(recipe, next(size for size in SIZES if fits(recipe, size)), CHANNELS)
    batch_size = 4 if recipe.batch_size >= 4 else 2
    steps = steps or 2 * max(recipe.n_critic, recipe.n_generator)
    return dataclasses.replace(
        recipe,
        batch_size=batch_size,
        images=batch_size * steps,
        log_every=1,
        evaluate_every=steps,
        checkpoint_every=steps,
    )


def fits(recipe: Recipe, size: int) -> bool:
    """Whether both networks can be made thin enough for `size` pixels."""
    try:
        scaled_down(recipe, size, CHANNELS)
    except ValueError:
        return False
    return True
