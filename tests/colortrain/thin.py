"""Any recipe made thin enough for a test: few pixels, few channels, as deep as those pixels allow, all else kept."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from colortrain.recipe import Critic, Generator, Recipe

SIZES = (32, 64, 128)
CHANNELS = 4
DEPTHS = ("levels", "depth", "blocks", "strided_layers")  # what a network calls its halvings

Part = TypeVar("Part", bound="Generator | Critic")


def thin(recipe: Recipe, steps: int | None = None) -> Recipe:
    """`recipe` at the least of `SIZES` it can take, a batch of 4 (of 2 if it was smaller) and a few channels.

    `steps` steps long, by default two turns of both networks. Rates, turns and losses stay, but nothing is downloaded.
    """
    recipe = without_downloads(recipe)
    size = next(size for size in SIZES if fits(recipe.generator, size) and fits(recipe.critic, size))
    batch_size = 4 if recipe.batch_size >= 4 else 2
    steps = steps or 2 * max(recipe.n_critic, recipe.n_generator)
    return dataclasses.replace(
        recipe,
        size=size,
        batch_size=batch_size,
        images=batch_size * steps,
        log_every=1,
        evaluate_every=steps,
        checkpoint_every=steps,
        generator=thin_part(recipe.generator, size),
        critic=thin_part(recipe.critic, size),
    )


def without_downloads(recipe: Recipe) -> Recipe:
    """`recipe` with random numbers where it starts from, or measures by, weights that others have trained."""
    generator: Any = recipe.generator
    terms: tuple[Any, ...] = recipe.objective.reconstruction
    if hasattr(generator, "pretrained"):
        generator = dataclasses.replace(generator, pretrained=None)
    terms = tuple(dataclasses.replace(t, weights="random") if hasattr(t, "weights") else t for t in terms)
    objective = dataclasses.replace(recipe.objective, reconstruction=terms)
    return dataclasses.replace(recipe, generator=generator, objective=objective)


def thin_part(part: Part, size: int) -> Part:
    """A network's configuration with few channels, and as few halvings less as `size` pixels ask for.

    Raises `ValueError` if no number of halvings will do.
    """
    names = {field.name for field in dataclasses.fields(part)}
    if "base_channels" in names:
        part = dataclasses.replace(part, base_channels=CHANNELS)
    depth = next((name for name in DEPTHS if name in names), None)
    while depth and getattr(part, depth) > 1 and not passes(part, size):
        part = dataclasses.replace(part, **{depth: getattr(part, depth) - 1})
    part.check_size(size)
    return part


def fits(part: Generator | Critic, size: int) -> bool:
    """Whether the network can be made thin enough for `size` pixels."""
    try:
        thin_part(part, size)
    except ValueError:
        return False
    return True


def passes(part: Generator | Critic, size: int) -> bool:
    """Whether a picture of `size` pixels can pass."""
    try:
        part.check_size(size)
    except ValueError:
        return False
    return True
