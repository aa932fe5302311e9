"""Prepare the recipes of an experiment: size, width, length and intervals."""

from __future__ import annotations

import dataclasses

from colortrain.differences import stretched
from colortrain.recipe import Plateau, Recipe, override
from colortrain.recipes import get_recipe
from colortrain.scale_down import scaled_down, with_weights
from launch.experiment.options import ExperimentOptions, Network
from shards.errors import UserError

_CHECKPOINTS = 4  # per training
_VALIDATIONS = 10  # per training, with `history`
_LOG_LINES, _LOG_LINES_OF_CURVES = 50, 200  # per training


def prepare_recipe(
    network: Network, options: ExperimentOptions, images: int | None, dataset_size: int
) -> Recipe:
    """Return the recipe of a network, adapted to the options of an experiment.

    images: number of images to train on, or None for the recipe's epochs; dataset_size:
    number of training images. Raises UserError if its networks cannot be built for
    images of this size.
    """
    recipe = with_weights(get_recipe(network.recipe), options.weights)
    recipe = _scale(override(recipe, network.settings), options)
    recipe = dataclasses.replace(recipe, images=images)
    recipe = stretched(recipe) if options.stretch_schedules else recipe
    return _set_intervals(recipe, dataset_size, options.history)


def _scale(recipe: Recipe, options: ExperimentOptions) -> Recipe:
    try:
        return scaled_down(recipe, options.size, options.base_channels)
    except ValueError as error:
        reason = str(error).partition(": set ")[0]  # these commands have no --set
        raise UserError(
            f"{recipe.name} cannot be trained at {options.size} px ({reason}): "
            "choose another size, or select other recipes with --recipes"
        ) from None


def _set_intervals(recipe: Recipe, dataset_size: int, history: bool) -> Recipe:
    """Set the intervals between log lines, validations and checkpoints, in steps."""
    steps = recipe.total_steps(dataset_size)
    lines = _LOG_LINES_OF_CURVES if history else _LOG_LINES
    recipe = dataclasses.replace(
        recipe,
        log_every=-(-steps // lines),
        checkpoint_every=-(-steps // _CHECKPOINTS),
    )
    if not history:  # a plateau would need more than one validation
        return dataclasses.replace(recipe, plateau=Plateau(), evaluate_every=steps)
    every = -(-steps // _VALIDATIONS)
    # The patience of a plateau counts validations at the recipe's own interval.
    every = min(every, recipe.evaluate_every) if recipe.plateau.patience else every
    return dataclasses.replace(recipe, evaluate_every=every)
