"""Count what the training steps of every recipe do on a GPU.

The result is a table with a row for each recipe, at its published size: operations per
step, times that the host waits for the GPU, bytes copied, and memory. The images are
random, and pretrained weights are replaced by random ones, because neither changes
these numbers. They do not depend on the speed of the machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.setup import PRECISIONS
from colortrain.recipe import Recipe
from colortrain.recipes import RECIPES, get_recipe
from colortrain.scale_down import without_downloads
from launch.benchmark.loading.shard_sets import write_noise_set
from launch.benchmark.scratch_folder import scratch_folder
from launch.benchmark.training.device_counts import StepCounts, count_steps
from launch.benchmark.training.setup import TrainingSetup
from launch.cli import CommandParser, at_least_one
from launch.compute_options import add_compute_arguments, compute_config
from shards.errors import UserError
from shards.files import write_atomic

_EXAMPLE = """\
example: in a clone of the repository, also on a machine without a GPU
  python -m tests.support.gpu_stand_in colortrain benchmark counts --recipe flagship
"""
_COLUMNS = (
    "recipe",
    "size",
    "batch",
    "operations",
    "waits",
    "to GPU, KB",
    "to host, B",
    "resident, MB",
    "step, MB an image",
)


def counts_of(
    recipe: Recipe, batch_size: int, precision: str, compute: ComputeConfig, scratch: Path
) -> StepCounts:
    """Return what the steps of a recipe do with batches of `batch_size`."""
    shards = scratch / f"shards-{recipe.size}-{batch_size}"
    if not shards.is_dir():
        write_noise_set(shards, recipe.size, 2 * batch_size)
    recipe = dataclasses.replace(
        without_downloads(recipe), batch_size=batch_size, images=1000 * batch_size
    )
    setup = TrainingSetup(recipe, (str(shards),), scratch)
    gc.collect()  # so that the memory of the previous recipe's networks does not count
    return count_steps(setup.make_trainer(recipe.name, precision=precision, compute=compute))


def table_row(recipe: Recipe, batch_size: int, counts: StepCounts) -> list[str]:
    """Return the cells of a recipe's row, as `_COLUMNS`."""
    return [
        f"`{recipe.name}`",
        str(recipe.size),
        str(batch_size),
        f"{counts.operations:,.0f}",
        f"{counts.waits:g}",
        f"{counts.to_device / 1e3:,.1f}",
        f"{counts.to_host:g}",
        f"{counts.resident / 1e6:,.0f}",
        f"{counts.activations / batch_size / 1e6:,.0f}",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Count, print the table as Markdown while it grows, and return the exit status."""
    args = make_parser().parse_args(argv)
    if not torch.cuda.is_available():
        raise UserError(
            "this benchmark needs a GPU; in a clone of the repository a stand-in will do: "
            "python -m tests.support.gpu_stand_in colortrain benchmark counts"
        )
    recipes = [get_recipe(name) for name in args.recipe or RECIPES]
    compute = compute_config(args)
    print(_line(_COLUMNS), _line(["---", *["--:"] * (len(_COLUMNS) - 1)]), sep="\n", flush=True)
    results = {}
    with scratch_folder(args.scratch) as scratch:
        for recipe in recipes:
            counts = counts_of(recipe, args.batch_size, args.precision, compute, scratch)
            results[recipe.name] = dataclasses.asdict(counts)
            print(_line(table_row(recipe, args.batch_size, counts)), flush=True)
    if args.json:
        write_atomic(args.json, json.dumps(results, indent=1).encode())
    return 0


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this benchmark's options."""
    parser = CommandParser("launch.benchmark counts", __doc__ or "", _EXAMPLE)
    add = parser.add_argument
    add("--recipe", action="append", metavar="NAME", help="repeatable (default: all recipes)")
    add(
        "--batch-size",
        type=at_least_one,
        default=2,
        metavar="N",
        help="images per step; only the bytes copied and the memory depend on it (default: 2)",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        default="bf16",
        help="mixed precision (default: bf16)",
    )
    add(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="folder for shards and runs, which are deleted afterwards (default: TMPDIR)",
    )
    add("--json", type=Path, metavar="FILE", help="write the numbers as JSON to this file")
    add_compute_arguments(parser)
    return parser
