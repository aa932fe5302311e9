"""Compute how many images to train on and how many to score, from --budget."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.setup import make_accelerator
from colortrain.distributed.wrap import make_networks
from colortrain.lab import Batch
from colortrain.losses.reconstruction import LossContext
from colortrain.recipe import Recipe
from colortrain.training.step import train_step
from launch.benchmark.training.setup import synchronize
from launch.experiment.options import ExperimentOptions, Plan
from launch.experiment.prepare import prepare_recipe
from launch.experiment.sets import Sets
from launch.processes import mixed_precision, num_processes_for
from shards.errors import UserError
from shards.files import write_atomic
from shards.inspect.statistics import CENTRES
from shards.json_files import read_json

_CLASSIFIER_IMAGES = 100_000  # two epochs of CIFAR-10: 74 % accuracy on the test images
_TRAINING_FRACTION = 0.85  # of the minutes; the rest is for the shards and the feature classifier
_START_SECONDS = 25.0  # time to start and end one training and one scoring, on two slow cores
_FEW_STEPS = 100  # a budget of fewer steps deserves a hint
_PROBE_SECONDS = 1.0  # time for which the speed of a recipe is measured
_PLANNED_FRACTION = 0.8  # of the remaining time; the rest is for reading, saving, other load


class _PlanFields(TypedDict):
    images: int | None
    limit: int | None
    classifier_images: int


class _PlanFile(TypedDict):
    request: dict[str, Any]
    plan: _PlanFields


@dataclass(frozen=True)
class Budget:
    """The value of --budget, which sets how long each network is trained.

    amount: the images per network if `kind` is "images"; the minutes of the whole
    command if it is "minutes"; unused if it is "full".
    """

    kind: Literal["minutes", "images", "full"]
    amount: int = 0


def parse_budget(text: str) -> Budget:
    """Convert the text of --budget, minutes:N, images:N or full, to a `Budget`.

    Raises argparse.ArgumentTypeError for any other text.
    """
    kind, _, amount = text.partition(":")
    if text == "full":
        return Budget("full")
    if kind in ("minutes", "images") and amount.isdigit() and int(amount):
        return Budget("minutes" if kind == "minutes" else "images", int(amount))
    raise argparse.ArgumentTypeError(f"must be minutes:N, images:N or full, got {text!r}")


def make_plan(options: ExperimentOptions, budget: Budget, sets: Sets) -> Plan:
    """Return on how many images the networks are trained, and how many are scored.

    The plan is made at the first start of the command, and read from OUT/plan.json at
    later starts. Raises UserError if the options or the budget have changed since.
    """
    path, request = options.out / "plan.json", {**options.shared(), "budget": asdict(budget)}
    if path.is_file():
        document = read_json(path, _PlanFile, f"choose another --out, or delete {options.out}")
        if document["request"] != request:
            raise UserError(
                f"{options.out} was started with other options ({document['request']}): "
                "choose another --out"
            )
        plan = document["plan"]
        return Plan(plan["images"], plan["limit"], plan["classifier_images"])
    plan = _decide(options, budget, sets)
    document = {"request": request, "plan": asdict(plan)}
    write_atomic(path, json.dumps(document, indent=1).encode() + b"\n")
    return plan


def _decide(options: ExperimentOptions, budget: Budget, sets: Sets) -> Plan:
    if budget.kind == "images":
        return Plan(budget.amount, options.limit, min(_CLASSIFIER_IMAGES, 10 * budget.amount))
    if budget.kind == "full":
        return Plan(options.full_images, options.limit, _CLASSIFIER_IMAGES)
    limit = options.limit or max(200, 50 * budget.amount)
    classifier_images = min(_CLASSIFIER_IMAGES, 2_000 * budget.amount)
    dataset_size = sets.training_images()
    recipes = [prepare_recipe(each, options, 10**6, dataset_size) for each in options.networks]
    per_image = sum(seconds_per_image(recipe) for recipe in recipes) * len(options.seeds)
    starts = _START_SECONDS * len(recipes) * len(options.seeds)
    seconds = _TRAINING_FRACTION * (60 * budget.amount) - starts
    least = max(recipe.batch_size for recipe in recipes)
    images = max(least, int(_PLANNED_FRACTION * seconds / per_image))
    print(
        f"{1 / per_image:.1f} images per second through all networks: {images:,} images each",
        flush=True,
    )
    if images < _FEW_STEPS * least:
        print(
            f"These are few steps: smaller networks and images train faster, for example with "
            f"--size {min(64, options.size)} --base-channels 16",
            flush=True,
        )
    return Plan(images, limit, classifier_images)


def seconds_per_image(recipe: Recipe) -> float:
    """Measure the seconds that training both networks of a recipe takes per image."""
    # The mixed precision of the training that is planned; measured in this process.
    processes = num_processes_for(recipe)
    accelerator = make_accelerator(mixed_precision=mixed_precision(processes))
    small = dataclasses.replace(recipe, batch_size=min(recipe.batch_size, 16))
    networks = make_networks(small, *small.build_networks(), accelerator, ComputeConfig())
    uniform = np.full((len(CENTRES),) * 2, len(CENTRES) ** -2.0)
    context = LossContext(
        accelerator.device,
        small.codec,
        lambda: uniform,
        networks[0].module,
        accelerator.autocast,
    )
    losses = [term.build(context) for term in small.objective.reconstruction]
    batch = random_batch(small, accelerator)
    steps, start = -1, time.monotonic()
    while steps < 1 or time.monotonic() - start < _PROBE_SECONDS or steps % small.n_critic:
        if steps == 0:  # the first step is a warm-up and not counted
            synchronize(accelerator.device)
            start = time.monotonic()
        epoch = (small.span or small.epochs) / 2
        train_step(*networks, small, losses, batch, max(steps, 0), epoch)
        steps += 1
    synchronize(accelerator.device)
    return (time.monotonic() - start) / (steps * small.batch_size)


def random_batch(recipe: Recipe, accelerator: Accelerator) -> Batch:
    """Return a batch of a recipe's shapes with uniform random values in [0, 1)."""
    size = (recipe.size, recipe.size)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, device=accelerator.device)

    return Batch(
        draw(recipe.batch_size, 1, *size),
        draw(recipe.batch_size, recipe.codec.channels, *size),
        draw(recipe.batch_size, 1, 1, 1),
    )
