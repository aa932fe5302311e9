"""Train a recipe on a shard set; the same command goes on where an earlier one stopped.

    accelerate launch --config_file launch/accelerate/cpu.yaml -m launch.train \\
        --recipe nampouri_unet --shards photos-256 --run runs/first
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch
from accelerate.utils import ProjectConfiguration

from colortrain.data import check_divides
from colortrain.models.initialise import num_parameters
from colortrain.plain import to_plain
from colortrain.preemption import STOPPED, listening
from colortrain.processes import check_trackers, make_accelerator
from colortrain.recipe import Recipe, load_recipe, override
from colortrain.recipes import get_recipe
from colortrain.run import Data, check_run_folder, open_data
from colortrain.trainer import Trainer
from launch.doors import DoorParser, add_cache, at_least_zero, cache_of, share
from launch.processes import check_processes, launcher, leave
from shards.errors import run_door

_EXAMPLE = """\
example: thin networks, 64 px, two processes on two cores
  accelerate launch --config_file launch/accelerate/cpu.yaml -m launch.train --recipe nampouri_unet \\
    --shards photos-64 --run runs/thin --images 20000 \\
    --set size=64 --set generator.levels=6 --set generator.base_channels=16 --set critic.base_channels=16
"""


def parser() -> argparse.ArgumentParser:
    """The words this door understands."""
    words = DoorParser("launch.train", "Train a recipe on a shard set.", _EXAMPLE)
    words.add_argument("--recipe", required=True, help="a recipe's name, or the path of a recipe.json")
    words.add_argument(
        "--shards", action="append", required=True, metavar="DIR[:WEIGHT]",
        help="folder or URL that `python -m shards build` wrote; several are mixed (a:0.7, b:0.3)",
    )  # fmt: skip
    words.add_argument("--run", required=True, type=Path, help="folder of this run, made or gone on with")
    words.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field of the recipe")
    length = words.add_mutually_exclusive_group()
    length.add_argument("--images", type=int, help="train on this many images in all")
    length.add_argument("--epochs", type=float, help="train for this many dataset sizes")
    words.add_argument(
        "--tracker", action="append", metavar="NAME",
        help="accelerate's trackers by name (tensorboard, wandb, mlflow, ...; none); default tensorboard",
    )  # fmt: skip
    words.add_argument(
        "--processes", type=int, default=0, metavar="N",
        help="check everything here, then start N processes through accelerate launch (one a GPU, or on CPU cores)",
    )  # fmt: skip
    add_cache(words)
    words.add_argument(
        "--workers", type=at_least_zero, default=1, metavar="N", help="threads that read shards (default: 1)"
    )
    words.add_argument(
        "--on-corrupt", choices=("stop", "substitute"), default="stop",
        help="a damaged sample stops the run, or the next one stands in for it, counted (default: stop)",
    )  # fmt: skip
    words.add_argument(
        "--corrupt-limit", type=share, default=0.01, metavar="SHARE",
        help="with substitute: stop when more than this share of the samples is damaged (default: 0.01)",
    )  # fmt: skip
    words.add_argument("--dry-run", action="store_true", help="print the resolved recipe and plan, write nothing")
    return words


def resolve(arguments: argparse.Namespace) -> Recipe:
    """The recipe that was asked for, with every change applied and checked."""
    name = arguments.recipe
    recipe = load_recipe(Path(name)) if name.endswith(".json") else get_recipe(name)
    changes = list(arguments.set)
    if arguments.images is not None:
        changes.append(f"images={arguments.images}")
    if arguments.epochs is not None:
        changes += ["images=none", f"epochs={arguments.epochs}"]
    recipe = override(recipe, changes)
    recipe.check()
    return recipe


def describe(recipe: Recipe, data: Data) -> str:
    """What a run would do, for `--dry-run`."""
    total = recipe.total_images(len(data.train))
    held_out = len(data.validation) if data.validation is not None else 0
    with torch.device("meta"):
        generator, critic = recipe.generator.build(), recipe.critic.build()
    return "\n".join(
        [
            json.dumps(to_plain(recipe), indent=1),
            f"generator {num_parameters(generator):,} parameters, critic {num_parameters(critic):,}",
            f"dataset {data.train.dataset_id}: {len(data.train):,} to train on, {held_out:,} held out",
            f"{total:,} images, {-(-total // recipe.batch_size):,} steps, {total / len(data.train):,.2f} epochs",
        ]
    )


def start_processes(count: int, argv: Sequence[str]) -> NoReturn:
    """Become `accelerate launch` of this same door with the same words, less --processes."""
    words = [*launcher(count), "-m", "launch.train", *argv, "--processes", "0"]
    sys.stdout.flush()
    os.execv(words[0], words)


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit status, which is `preemption.STOPPED` if USR2 or TERM ended it early (all is saved)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(argv)
    recipe = resolve(arguments)
    limit = arguments.corrupt_limit if arguments.on_corrupt == "substitute" else 0.0
    data = open_data(
        arguments.shards, recipe, workers=arguments.workers, corrupt_limit=limit, cache=cache_of(arguments)
    )
    check_run_folder(arguments.run, recipe)
    trackers = [name for name in arguments.tracker or ["tensorboard"] if name != "none"]
    check_trackers(trackers)
    if arguments.dry_run:
        print(describe(recipe, data))
        return 0
    if arguments.processes:
        check_processes(arguments.processes)
        check_divides(recipe.batch_size, arguments.processes)
        start_processes(arguments.processes, argv)
    project = ProjectConfiguration(project_dir=str(arguments.run), logging_dir=str(arguments.run / "tensorboard"))
    accelerator = make_accelerator(log_with=trackers or None, project_config=project)
    try:
        with listening():
            finished = Trainer(recipe, data, arguments.run, accelerator).train()
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    if not finished and accelerator.is_main_process:
        print(f"{arguments.run}: asked to stop, saved; the same command goes on", file=sys.stderr)
    return 0 if finished else STOPPED


if __name__ == "__main__":
    leave(run_door("launch.train", main))
