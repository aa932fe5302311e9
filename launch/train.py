"""Train a recipe on a shard set; the same command resumes an interrupted run.

    colortrain train --recipe nampouri_unet --shards photos-256 --run runs/first

For several processes, add `--processes N` or use an accelerate configuration:

    accelerate launch --config_file launch/accelerate/cpu.yaml -m launch.train \\
        --recipe nampouri_unet --shards photos-256 --run runs/first
"""

from __future__ import annotations

import argparse
import dataclasses
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
from colortrain.distributed.batch_statistics import small_batch_warning
from colortrain.distributed.rank_failures import LostRanksError, detect_lost_ranks
from colortrain.distributed.setup import check_trackers, make_accelerator
from colortrain.models.initialise import num_parameters
from colortrain.out_of_memory import explain_out_of_memory
from colortrain.recipe import Recipe, load_recipe, override
from colortrain.recipes import get_recipe
from colortrain.runs.folder import TrainingData, check_run_folder, open_data, open_streamed
from colortrain.runs.image_fit import fit_warning
from colortrain.runs.layout import (
    EXIT_LOST_RANK,
    EXIT_STOPPED,
    checkpoint_steps,
    tensorboard_folder,
)
from colortrain.runs.retention import check_steering
from colortrain.serialize import to_plain
from colortrain.training.cadence import (
    DEFAULT_OVERHEAD,
    Overhead,
    divided,
    with_shorter_intervals,
)
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
from launch.processes import check_processes, exit_process, launch_command
from shards.errors import UserError, command_name, run_command
from shards.read.dataset import Split, open_held_out

_EXAMPLE = """\
exit status: 0 finished, 75 stopped by a signal with everything saved, 69 another process of the
run has died or hangs, 2 invalid options or data, or not enough memory (one line says what is
wrong), 70 a bug, 130 Ctrl-C

example: small networks, 64 px, two processes on two cores
  accelerate launch --config_file launch/accelerate/cpu.yaml -m launch.train \\
    --recipe nampouri_unet --shards photos-64 --run runs/small --images 20000 \\
    --set size=64 --set generator.levels=6 --set generator.base_channels=16 \\
    --set critic.base_channels=16
For the same without a configuration file: colortrain train --processes 2 --recipe ...
"""
_MEMORY_ADVICE = (
    "set a smaller batch_size or fewer base_channels, or give --accumulate N or --recompute"
)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = CommandParser(
        "train",
        "Train a recipe on a shard set; the same command resumes an interrupted run.",
        _EXAMPLE,
    )
    parser.add_argument(
        "--recipe",
        required=True,
        metavar="NAME",
        help="the name of a recipe, or the path of a recipe.json",
    )
    parser.add_argument(
        "--run",
        required=True,
        type=Path,
        metavar="DIR",
        help="run folder: created, or resumed if it exists",
    )
    _add_data_arguments(parser)
    _add_recipe_arguments(parser)
    _add_run_arguments(parser)
    add_cache_arguments(parser)
    add_compute_arguments(parser)
    return parser


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--shards",
        action="append",
        metavar="DIR[:WEIGHT]",
        help="folder or URL written by `colortrain shards build`; repeat the option to mix several "
        "sets with weights (a:0.7, b:0.3)",
    )
    source.add_argument(
        "--stream",
        metavar="PATTERN",
        help="plain WebDataset tars of lab.npy or images, without an index; they are read "
        "sequentially, so resuming is not exact",
    )
    parser.add_argument(
        "--epoch-images",
        type=at_least_one,
        metavar="N",
        help="with --stream: the number of images that counts as an epoch",
    )
    parser.add_argument(
        "--validation", metavar="DIR", help="with --stream: a shard set for validation"
    )
    parser.add_argument(
        "--train-split",
        metavar="NAME",
        help="the split of --shards to train on (default: train, or the only split)",
    )
    parser.add_argument(
        "--validation-split",
        metavar="NAME",
        help="the split to validate on (default: val, validation or test, if there is one)",
    )
    parser.add_argument(
        "--workers",
        type=at_least_zero,
        default=1,
        metavar="N",
        help="number of threads that read shards (default: 1)",
    )
    parser.add_argument(
        "--on-corrupt",
        choices=("stop", "substitute"),
        default="stop",
        help="stop at a damaged sample, or use the next sample instead and count the damaged one "
        "(default: stop)",
    )
    parser.add_argument(
        "--corrupt-limit",
        type=fraction,
        default=0.01,
        metavar="FRACTION",
        help="with `substitute`: stop if more than this fraction of the samples is damaged "
        "(default: 0.01)",
    )


def _add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the recipe, for example critic_adam.lr=5e-5; repeatable",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--images", type=int, metavar="N", help="length of training in images")
    length.add_argument("--epochs", type=float, metavar="X", help="length of training in epochs")
    parser.add_argument(
        "--init-from", type=Path, metavar="RUN", help="initialise with the weights of another run"
    )
    parser.add_argument(
        "--only",
        choices=("generator",),
        help="with --init-from: copy only the generator's weights; the critic is initialised "
        "randomly",
    )


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tracker",
        action="append",
        metavar="NAME",
        help="one of accelerate's trackers (tensorboard, wandb, mlflow, ...), or none; repeatable "
        "(default: tensorboard)",
    )
    parser.add_argument(
        "--overhead",
        type=fraction,
        metavar="FRACTION",
        help="skip scheduled validations and checkpoints, except the last, while validating or "
        "saving takes more than half of this fraction of the time; 1: skip none (default: "
        f"{DEFAULT_OVERHEAD}, but 1 for intervals that --set or a recipe.json gives)",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=0,
        metavar="N",
        help="check all options, then start N processes through accelerate launch (one per GPU, or "
        "on CPU cores)",
    )
    parser.add_argument(
        "--timeout",
        type=at_least_one,
        default=1800,
        metavar="SECONDS",
        help="end the run if one process keeps the others waiting for this long (default: 1800)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved recipe and the length of the run, and write nothing",
    )


def resolve(args: argparse.Namespace) -> Recipe:
    """Return the recipe of --recipe with the changes of --set, --images and --epochs.

    Raises UserError for an unknown recipe or field, an invalid value, or components
    that do not fit together.
    """
    name = args.recipe
    recipe = load_recipe(Path(name)) if name.endswith(".json") else get_recipe(name)
    changes = list(args.set)
    if args.images is not None:
        changes.append(f"images={args.images}")
    if args.epochs is not None:
        changes += ["images=none", f"epochs={args.epochs}"]
    recipe = override(recipe, changes)
    recipe.check()
    return recipe


def given_fields(args: argparse.Namespace) -> set[str]:
    """Return the fields of the recipe that the user has chosen.

    They are those of --set, or all fields for a recipe from a file.
    """
    if args.recipe.endswith(".json"):
        return {field.name for field in dataclasses.fields(Recipe)}
    return {assignment.partition("=")[0] for assignment in args.set}


def overhead(args: argparse.Namespace) -> Overhead:
    """Return how much of the time validating and saving may take, by --overhead."""
    if args.overhead is not None:
        return divided(args.overhead)
    given, default = given_fields(args), divided(DEFAULT_OVERHEAD)
    return Overhead(
        validation=1.0 if "evaluate_every" in given else default.validation,
        saving=1.0 if "checkpoint_every" in given else default.saving,
    )


def describe(recipe: Recipe, data: TrainingData) -> str:
    """Return the text of --dry-run: recipe, parameters, samples, length of the run."""
    total = recipe.total_images(len(data.train))
    with torch.device("meta"):
        generator, critic = recipe.build_networks()
    critic_text = "no critic"
    if critic is not None:
        critic_text = f"critic: {num_parameters(critic):,} parameters"
    lines = [
        json.dumps(to_plain(recipe), indent=1),
        f"generator: {num_parameters(generator):,} parameters, {critic_text}",
        f"dataset {data.dataset_id}: {len(data.train):,} training samples, "
        f"{_describe_validation(data.validation)}",
        f"{total:,} images, {recipe.total_steps(len(data.train)):,} steps, "
        f"{total / len(data.train):,.2f} epochs",
    ]
    return "\n".join(lines)


def _describe_validation(validation: Split | None) -> str:
    return f"{len(validation):,} held out ({validation.name})" if validation else "0 held out"


def open_training_data(args: argparse.Namespace, recipe: Recipe) -> TrainingData:
    """Return the training and validation data that --shards or --stream selects.

    Raises UserError if the data cannot be read or does not match the recipe.
    """
    limit = args.corrupt_limit if args.on_corrupt == "substitute" else 0.0
    workers, cache = args.workers, make_cache(args)
    if args.shards:
        if args.epoch_images or args.validation:
            raise UserError(
                "--epoch-images and --validation are for --stream only: remove them, "
                "because shard sets define both"
            )
        return open_data(
            args.shards,
            recipe,
            workers=workers,
            corrupt_limit=limit,
            cache=cache,
            train_split=args.train_split,
            validation_split=args.validation_split,
        )
    if args.train_split or (args.validation_split and not args.validation):
        raise UserError(
            "--train-split is for --shards only, and --validation-split requires --validation "
            "with --stream: remove them"
        )
    if not args.epoch_images:
        raise UserError(
            "--stream requires --epoch-images N, because tars without an index have no known size"
        )
    held_out = (
        open_held_out(args.validation, cache, args.validation_split, "--validation-split")
        if args.validation
        else None
    )
    if held_out is not None and held_out.size != recipe.size:
        raise UserError(
            f"--validation {args.validation} has samples of {held_out.size} px, "
            f"but the recipe requires {recipe.size} px: give another shard set"
        )
    return open_streamed(
        args.stream,
        recipe,
        epoch_images=args.epoch_images,
        workers=workers,
        corrupt_limit=limit,
        validation=held_out,
    )


def exec_processes(count: int, argv: Sequence[str]) -> NoReturn:
    """Replace this process by `accelerate launch`, which trains in `count` processes.

    argv: the arguments of `colortrain train`.
    """
    command = [*launch_command(count), "-m", "launch.train", *argv, "--processes", "0"]
    sys.stdout.flush()
    os.execv(command[0], command)


def main(argv: Sequence[str] | None = None) -> int:
    """Train and return the exit status.

    It is 0 after training, 75 (`EXIT_STOPPED`) if a signal ended training early, and 69
    (`EXIT_LOST_RANK`) if another process of the run died or hangs.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    args = make_parser().parse_args(argv)
    recipe = resolve(args)
    compute_config(args)  # raises for invalid values before anything is started
    data = open_training_data(args, recipe)
    recipe = with_shorter_intervals(recipe, len(data.train), given_fields(args))
    check_run_folder(args.run, recipe)
    check_steering(recipe, data.validation)
    init = load_initial_weights(args, recipe)
    trackers = [name for name in args.tracker or ["tensorboard"] if name != "none"]
    check_trackers(trackers)
    if args.dry_run:
        if warning := fit_warning(recipe, data.train):
            print(warning, file=sys.stderr)
        print(describe(recipe, data))
        return 0
    if args.processes:
        check_processes(args.processes)
        check_divides(recipe.batch_size, args.processes)
        exec_processes(args.processes, argv)
    project = ProjectConfiguration(
        project_dir=str(args.run), logging_dir=str(tensorboard_folder(args.run))
    )
    accelerator = make_accelerator(
        timeout=args.timeout, log_with=trackers or None, project_config=project
    )
    compute = compute_config(args, accelerator.gradient_accumulation_steps)

    def make_trainer() -> Trainer:
        trainer = Trainer(recipe, data, args.run, accelerator, init, compute, overhead(args))
        few = small_batch_warning(recipe, accelerator.num_processes, compute.accumulate)
        trainer.warnings = tuple(filter(None, (fit_warning(recipe, data.train), few)))
        return trainer

    return run_training(make_trainer, accelerator, args.timeout)


def load_initial_weights(args: argparse.Namespace, recipe: Recipe) -> InitialWeights | None:
    """Return the weights of the run in --init-from, or None if they are not needed.

    Raises UserError if the weights do not fit the recipe.
    """
    if args.only and not args.init_from:
        raise UserError("--only requires --init-from RUN, the run whose generator is copied")
    # A run with a checkpoint resumes from it; the other run may have been deleted.
    if args.init_from is None or checkpoint_steps(args.run):
        return None
    return initial_weights(args.init_from, recipe, args.only)


def run_training(
    make_trainer: Callable[[], Trainer], accelerator: Accelerator, timeout: float
) -> int:
    """Create the trainer, train, and return the exit status of `colortrain train`.

    timeout: seconds after which a silent process counts as hanging.
    """
    try:
        with (
            detect_lost_ranks(accelerator, timeout),
            explain_out_of_memory("this recipe", _MEMORY_ADVICE),
            handling_signals(),
        ):
            trainer = make_trainer()
            finished = trainer.train()
    except LostRanksError as lost:
        if lost.line:
            print(f"{command_name('train')}: error: {lost.line}", file=sys.stderr)
        return EXIT_LOST_RANK
    # not after an exception: NCCL would wait here for ranks that do not arrive
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if not finished and accelerator.is_main_process:
        print(
            f"{trainer.run}: stopped by a signal, everything is saved; the same command resumes",
            file=sys.stderr,
        )
    return 0 if finished else EXIT_STOPPED


if __name__ == "__main__":
    exit_process(run_command("train", main))
