"""How a recipe that is compared differs from the system that its paper describes.

Differences that all rows of a comparison share, such as size and width, are not among
them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from colortrain.losses.perceptual import Perceptual
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.recipe import Recipe
from colortrain.recipes import RECIPES, get_recipe
from colortrain.schedule import Schedule


def differences(recipe: Recipe, dataset_size: int) -> list[str]:
    """Return what a recipe lacks of its paper's system, as phrases; often nothing.

    `dataset_size` is the number of training images.
    """
    return [
        *missing_weights(recipe),
        *missed_phases(recipe, dataset_size),
        *constant_rates(recipe, dataset_size),
    ]


def missing_weights(recipe: Recipe) -> list[str]:
    """Return which pretrained weights of the published system a recipe lacks.

    The result has "random VGG-16", "ResNet-18 without ImageNet weights", both or
    neither.
    """
    terms = recipe.objective.reconstruction
    random = any(isinstance(term, Perceptual) and term.weights == "random" for term in terms)
    generator = recipe.generator
    blank = isinstance(generator, ResNet18UNetConfig) and generator.pretrained in (None, "none")
    names = {"random VGG-16": random, "ResNet-18 without ImageNet weights": blank}
    return [name for name, missing in names.items() if missing]


def missed_phases(recipe: Recipe, dataset_size: int) -> list[str]:
    """Return which changes of a recipe's schedules a run ends before.

    `dataset_size` is the number of training images. The result has one phrase, or none.
    """
    if recipe.span:
        published = get_recipe(recipe.name).span if recipe.name in RECIPES else recipe.span
        phrase = f"schedules of {recipe.span:g} epochs stretched to the run"
        return [] if published else [phrase]
    later = sorted({epoch for epoch in _change_epochs(recipe) if epoch > 0})
    missed = [epoch for epoch in later if epoch >= recipe.total_images(dataset_size) / dataset_size]
    text = " and ".join(f"{epoch:g}" for epoch in missed)
    return [f"ends before its schedule changes at epoch {text}"] if missed else []


def constant_rates(recipe: Recipe, dataset_size: int) -> list[str]:
    """Return a phrase if only the paper's system would reduce its learning rates.

    `dataset_size` is the number of training images.
    """
    if recipe.plateau.patience or recipe.name not in RECIPES:
        return []
    published = get_recipe(recipe.name)
    steps = recipe.total_steps(dataset_size)
    earliest = published.plateau.patience * published.evaluate_every  # steps
    return ["learning rates never fall"] if 0 < earliest < steps else []


def stretched(recipe: Recipe) -> Recipe:
    """Return a recipe whose schedules are stretched to the length of the run.

    Recipes without changes, or whose schedules are stretched already, stay as they are.
    """
    if recipe.span or not any(epoch > 0 for epoch in _change_epochs(recipe)):
        return recipe
    return dataclasses.replace(recipe, span=recipe.epochs)


def _change_epochs(recipe: Recipe) -> Iterator[float]:
    """Yield the epochs at which a schedule of a recipe changes, and `critic_from`."""
    objective = recipe.objective
    schedules: list[Schedule] = [recipe.learning_rate, objective.adversarial_weight]
    schedules += [term.weight for term in objective.reconstruction]
    schedules += [penalty.weight for penalty in objective.penalties]
    yield from (epoch for schedule in schedules for epoch, _ in schedule.points)
    yield objective.critic_from
