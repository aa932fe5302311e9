"""A small recipe and its options, for tests of the benchmarks of training."""

from __future__ import annotations

from pathlib import Path

from colortrain.recipe import override
from colortrain.recipes import get_recipe
from launch.benchmark.training.setup import TrainingSetup

SMALL = [
    "size=32",
    "generator.levels=4",
    "generator.base_channels=4",
    "critic.base_channels=4",
    "batch_size=4",
]
QUICK = ["--seconds", "0.05", "--rounds", "2", "--threads", "1"]


def small_setup(shards: Path, scratch: Path, *changes: str) -> TrainingSetup:
    """Return a small U-Net on a shard set of 32 px samples."""
    recipe = override(get_recipe("nampouri_unet"), [*SMALL, "log_every=2", *changes])
    return TrainingSetup(recipe, (str(shards),), scratch)


def small_argv(shards: Path, *options: str) -> list[str]:
    """Return the options of a benchmark of training that takes seconds."""
    changes = [argument for change in SMALL for argument in ("--set", change)]
    return ["--shards", str(shards), *changes, *QUICK, *options]
