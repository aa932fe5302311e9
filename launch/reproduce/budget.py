"""From a budget to numbers: how many images each network sees on this device, how many are scored."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.setup import make_accelerator
from colortrain.distributed.wrap import make_networks
from colortrain.lab import Batch
from colortrain.losses.reconstruction import Resources
from colortrain.recipe import Recipe
from colortrain.training.step import train_step
from launch.benchmark.training.setup import wait_for
from launch.processes import num_processes_for, precision
from launch.reproduce.datasets import Sets
from launch.reproduce.entries import resolved
from launch.reproduce.options import Asked, Plan
from shards.errors import UserError
from shards.files import write_atomic
from shards.inspect.statistics import CENTRES

FULL = {
    "nazeri": 10_000_000,
    "cifar10": 500_000,
    "photos": 150_000,
}  # nazeri: 200 epochs; about 10; about 100
_JUDGE_IMAGES = 100_000  # two epochs of CIFAR-10: 74 % of the test pictures named rightly
_START = 25.0  # seconds to start a training and a scoring, and to end them, on two slow cores
_PROBE = 1.0  # seconds of steps that tell how fast a recipe is
_SHARE = 0.8  # of the time left that is planned for: reading, saving and others' work come on top


@dataclass(frozen=True)
class Budget:
    """What was asked for: minutes of this device, images each, or the full number."""

    kind: Literal["minutes", "images", "full"]
    amount: int = 0


def budget(text: str) -> Budget:
    """The type of `--budget`."""
    kind, _, amount = text.partition(":")
    if text == "full":
        return Budget("full")
    if kind in ("minutes", "images") and amount.isdigit() and int(amount):
        return Budget("minutes" if kind == "minutes" else "images", int(amount))
    raise argparse.ArgumentTypeError(f"needs minutes:N, images:N or full, got {text!r}")


def make_plan(asked: Asked, wanted: Budget, built: Sets) -> Plan:
    """The plan of an earlier start of the same command, or a new one, written to OUT/plan.json.

    Raises `UserError` if OUT was begun with other words.
    """
    path, words = asked.out / "plan.json", {**asked.plain(), "budget": asdict(wanted)}
    if path.is_file():
        document = json.loads(path.read_text())
        if document["asked"] != words:
            raise UserError(
                f"{asked.out} was begun with other words ({document['asked']}): choose another --out"
            )
        return Plan(**document["plan"])
    plan = _decide(asked, wanted, built)
    write_atomic(
        path, json.dumps({"asked": words, "plan": asdict(plan)}, indent=1).encode() + b"\n"
    )
    return plan


def _decide(asked: Asked, wanted: Budget, built: Sets) -> Plan:
    if wanted.kind == "images":
        return Plan(wanted.amount, asked.limit, min(_JUDGE_IMAGES, 10 * wanted.amount))
    if wanted.kind == "full":
        return Plan(FULL[asked.table], asked.limit, _JUDGE_IMAGES)
    seconds = 60 * wanted.amount
    limit = asked.limit or max(200, 50 * wanted.amount)
    judge_images = min(_JUDGE_IMAGES, 2_000 * wanted.amount)
    recipes = [resolved(name, asked, built.size, 10**6) for name in asked.recipes]
    each = sum(seconds_an_image(recipe) for recipe in recipes) * len(asked.seeds)
    left = 0.85 * seconds - _START * len(asked.recipes) * len(asked.seeds)
    least = max(recipe.batch_size for recipe in recipes)
    images = max(least, int(_SHARE * left / each))
    print(
        f"{1 / each:.1f} images a second through all networks: {images:,} images each", flush=True
    )
    return Plan(images, limit, judge_images)


def seconds_an_image(recipe: Recipe) -> float:
    """How long one image takes, both networks' turns together: on noise, in this process and `starter`'s precision."""
    accelerator = make_accelerator(mixed_precision=precision(num_processes_for(recipe.batch_size)))
    few = dataclasses.replace(recipe, batch_size=min(recipe.batch_size, 16))
    networks = make_networks(few, *few.build_networks(), accelerator, ComputeConfig())
    evenly = np.full((len(CENTRES),) * 2, len(CENTRES) ** -2.0)
    resources = Resources(accelerator.device, few.codec, lambda: evenly, networks[0].module)
    measures = [term.build(resources) for term in few.objective.reconstruction]
    batch = noise(few, accelerator)
    steps, began = -1, time.monotonic()
    while steps < 1 or time.monotonic() - began < _PROBE or steps % few.n_critic:
        if steps == 0:  # the first one only warms up
            wait_for(accelerator.device)
            began = time.monotonic()
        train_step(*networks, few, measures, batch, max(steps, 0), (few.span or few.epochs) / 2)
        steps += 1
    wait_for(accelerator.device)
    return (time.monotonic() - began) / (steps * few.batch_size)


def noise(recipe: Recipe, accelerator: Accelerator) -> Batch:
    """A batch of a recipe's shape."""
    shape = (recipe.batch_size, recipe.codec.channels, recipe.size, recipe.size)

    def draw(*extents: int) -> Tensor:
        return torch.rand(extents, device=accelerator.device)

    return Batch(draw(shape[0], 1, *shape[2:]), draw(*shape), draw(shape[0], 1, 1, 1))
