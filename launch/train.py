"""Train a recipe on a shard set; the same command goes on where an earlier one stopped.

    accelerate launch --config_file launch/accelerate/cpu.yaml -m launch.train \\
        --recipe nampouri_unet --shards photos-256 --run runs/first
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration

from colortrain.data.loader import check_divides
from colortrain.distributed.rank_failures import LostRanksError, detect_lost_ranks
from colortrain.distributed.setup import check_trackers, make_accelerator
from colortrain.models.initialise import num_parameters
from colortrain.recipe import Recipe, load_recipe, override
from colortrain.recipes import get_recipe
from colortrain.runs.folder import TrainingData, check_run_folder, open_data, open_streamed
from colortrain.runs.layout import (
    EXIT_LOST_RANK,
    EXIT_STOPPED,
    checkpoint_steps,
    tensorboard_folder,
)
from colortrain.runs.retention import check_keep_best
from colortrain.serialize import to_plain
from colortrain.training.finetune import InitialWeights, initial_weights
from colortrain.training.preemption import handling_signals
from colortrain.training.trainer import Trainer
from launch.cli import (
    CommandParser,
    add_cache_arguments,
    at_least_one,
    at_least_zero,
    fraction,
    make_cache,
)
from launch.compute_options import add_compute_arguments, compute_config
from launch.processes import check_processes, launcher, leave
from shards.errors import UserError, command_name, run_command
from shards.read.dataset import open_held_out

_EXAMPLE = """\
example: thin networks, 64 px, two processes on two cores
  accelerate launch --config_file launch/accelerate/cpu.yaml -m launch.train --recipe nampouri_unet \\
    --shards photos-64 --run runs/thin --images 20000 \\
    --set size=64 --set generator.levels=6 --set generator.base_channels=16 --set critic.base_channels=16
"""


def parser() -> argparse.ArgumentParser:
    """The words this door understands."""
    words = CommandParser("launch.train", "Train a recipe on a shard set.", _EXAMPLE)
    words.add_argument(
        "--recipe", required=True, help="a recipe's name, or the path of a recipe.json"
    )
    source = words.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--shards",
        action="append",
        metavar="DIR[:WEIGHT]",
        help="folder or URL that `python -m shards build` wrote; several are mixed (a:0.7, b:0.3)",
    )
    source.add_argument(
        "--stream",
        metavar="PATTERN",
        help="plain WebDataset tars of lab.npy or images, without an index: read front to back, not exact",
    )
    words.add_argument(
        "--epoch-images",
        type=at_least_one,
        metavar="N",
        help="with --stream: what an epoch is taken to be",
    )
    words.add_argument(
        "--validation", metavar="DIR", help="with --stream: shards to score on while training"
    )
    words.add_argument(
        "--run", required=True, type=Path, help="folder of this run, made or gone on with"
    )
    words.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the recipe",
    )
    length = words.add_mutually_exclusive_group()
    length.add_argument("--images", type=int, help="train on this many images in all")
    length.add_argument("--epochs", type=float, help="train for this many dataset sizes")
    words.add_argument(
        "--init-from", type=Path, metavar="RUN", help="begin with the weights of another run"
    )
    words.add_argument(
        "--only", choices=("generator",), help="with --init-from: the critic begins anew"
    )
    words.add_argument(
        "--tracker",
        action="append",
        metavar="NAME",
        help="accelerate's trackers by name (tensorboard, wandb, mlflow, ...; none); default tensorboard",
    )
    words.add_argument(
        "--processes",
        type=int,
        default=0,
        metavar="N",
        help="check everything here, then start N processes through accelerate launch (one a GPU, or on CPU cores)",
    )
    words.add_argument(
        "--timeout",
        type=at_least_one,
        default=1800,
        metavar="SECONDS",
        help="end the run when a process lets the others wait for so long (default: 1800)",
    )
    add_cache_arguments(words)
    add_compute_arguments(words)
    words.add_argument(
        "--workers",
        type=at_least_zero,
        default=1,
        metavar="N",
        help="threads that read shards (default: 1)",
    )
    words.add_argument(
        "--on-corrupt",
        choices=("stop", "substitute"),
        default="stop",
        help="a damaged sample stops the run, or the next one stands in for it, counted (default: stop)",
    )
    words.add_argument(
        "--corrupt-limit",
        type=fraction,
        default=0.01,
        metavar="SHARE",
        help="with substitute: stop when more than this share of the samples is damaged (default: 0.01)",
    )
    words.add_argument(
        "--dry-run", action="store_true", help="print the resolved recipe and plan, write nothing"
    )
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


def describe(recipe: Recipe, data: TrainingData) -> str:
    """What a run would do, for `--dry-run`."""
    total = recipe.total_images(len(data.train))
    held_out = len(data.validation) if data.validation is not None else 0
    with torch.device("meta"):
        generator, critic = recipe.build_networks()
    critic_text = "no critic" if critic is None else f"critic {num_parameters(critic):,}"
    return "\n".join(
        [
            json.dumps(to_plain(recipe), indent=1),
            f"generator {num_parameters(generator):,} parameters, {critic_text}",
            f"dataset {data.train.dataset_id}: {len(data.train):,} to train on, {held_out:,} held out",
            f"{total:,} images, {-(-total // recipe.batch_size):,} steps, {total / len(data.train):,.2f} epochs",
        ]
    )


def data_of(arguments: argparse.Namespace, recipe: Recipe) -> TrainingData:
    """What --shards or --stream says to learn from."""
    limit = arguments.corrupt_limit if arguments.on_corrupt == "substitute" else 0.0
    workers, cache = arguments.workers, make_cache(arguments)
    if arguments.shards:
        if arguments.epoch_images or arguments.validation:
            raise UserError("--epoch-images and --validation go with --stream: shards know both")
        return open_data(
            arguments.shards, recipe, workers=workers, corrupt_limit=limit, cache=cache
        )
    if not arguments.epoch_images:
        raise UserError("--stream needs --epoch-images N: nobody has counted what the tars hold")
    held_out = open_held_out(arguments.validation, cache) if arguments.validation else None
    if held_out is not None and held_out.size != recipe.size:
        raise UserError(
            f"--validation {arguments.validation} holds {held_out.size} px samples, not {recipe.size}"
        )
    return open_streamed(
        arguments.stream,
        recipe,
        epoch_images=arguments.epoch_images,
        workers=workers,
        corrupt_limit=limit,
        validation=held_out,
    )


def start_processes(count: int, argv: Sequence[str]) -> NoReturn:
    """Become `accelerate launch` of this same door with the same words, less --processes."""
    words = [*launcher(count), "-m", "launch.train", *argv, "--processes", "0"]
    sys.stdout.flush()
    os.execv(words[0], words)


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit status, which is 75 (`EXIT_STOPPED`) if USR2 or TERM ended it early (all is saved).

    It is 69 where another process of the run died or hangs.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(argv)
    recipe = resolve(arguments)
    compute_config(arguments)  # a mistake in it is found before anything starts
    data = data_of(arguments, recipe)
    check_run_folder(arguments.run, recipe)
    check_keep_best(recipe, data.validation is not None)
    init = begins_with(arguments, recipe)
    trackers = [name for name in arguments.tracker or ["tensorboard"] if name != "none"]
    check_trackers(trackers)
    if arguments.dry_run:
        print(describe(recipe, data))
        return 0
    if arguments.processes:
        check_processes(arguments.processes)
        check_divides(recipe.batch_size, arguments.processes)
        start_processes(arguments.processes, argv)
    project = ProjectConfiguration(
        project_dir=str(arguments.run), logging_dir=str(tensorboard_folder(arguments.run))
    )
    accelerator = make_accelerator(
        timeout=arguments.timeout, log_with=trackers or None, project_config=project
    )
    compute = compute_config(arguments, accelerator.gradient_accumulation_steps)
    return train(
        lambda: Trainer(recipe, data, arguments.run, accelerator, init, compute),
        accelerator,
        arguments.timeout,
    )


def begins_with(arguments: argparse.Namespace, recipe: Recipe) -> InitialWeights | None:
    """The weights of --init-from, None where the run has a beginning already: that other run may be gone by now."""
    if arguments.only and not arguments.init_from:
        raise UserError(
            "--only says what to take over from another run: give that as --init-from RUN"
        )
    if arguments.init_from is None or checkpoint_steps(arguments.run):
        return None
    return initial_weights(arguments.init_from, recipe, arguments.only)


def train(make: Callable[[], Trainer], accelerator: Accelerator, timeout: float) -> int:
    """Make the trainer and run it, as one of several processes perhaps; returns the exit status."""
    try:
        with detect_lost_ranks(accelerator, timeout), handling_signals():
            trainer = make()
            finished = trainer.train()
    except LostRanksError as lost:
        if lost.line:
            print(f"{command_name('train')}: error: {lost.line}", file=sys.stderr)
        return EXIT_LOST_RANK
    if (
        torch.distributed.is_initialized()
    ):  # after an error not: NCCL would wait here for ranks that do not come
        torch.distributed.destroy_process_group()
    if not finished and accelerator.is_main_process:
        print(f"{trainer.run}: asked to stop, saved; the same command goes on", file=sys.stderr)
    return 0 if finished else EXIT_STOPPED


if __name__ == "__main__":
    leave(run_command("launch.train", main))
