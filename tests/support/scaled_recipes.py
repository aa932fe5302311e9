"""Scale any recipe down for tests: few pixels, channels and steps, no downloads."""

from __future__ import annotations

import dataclasses

from colortrain.recipe import Recipe
from colortrain.scale_down import scaled_down, without_downloads

SIZES = (32, 64, 128)
CHANNELS = 4


def scaled(recipe: Recipe, steps: int | None = None) -> Recipe:
    """Return `recipe` at the smallest of `SIZES` that it accepts, with few channels.

    The batch size is 4 (2 if the recipe's was smaller). The run has `steps` steps, by
    default two rounds of both networks. Rates, schedules and losses are unchanged, but
    nothing is downloaded.
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
    """Return whether both networks can be scaled down to `size` pixels."""
    try:
        scaled_down(recipe, size, CHANNELS)
    except ValueError:
        return False
    return True
