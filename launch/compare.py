"""Train recipes on the same shards for the same number of images and compare them.

    colortrain compare --shards cifar-32 --out runs/compare --images 20000

Networks are scaled down in width (--base-channels) and in depth to fit the images. A
row says so if its system lacks pretrained weights, or ends before its schedules change;
everything else is as published. After an interruption the same command resumes; with
other --recipes or --seeds, it adds rows to the table.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from colortrain.distributed.device import num_gpus
from colortrain.recipes import RECIPES
from launch.cli import CommandParser, at_least_one
from launch.experiment.arguments import (
    add_network_arguments,
    add_scoring_arguments,
    check_recipes,
    shared_options,
)
from launch.experiment.budget import Budget, make_plan
from launch.experiment.figures import open_photos
from launch.experiment.options import ExperimentOptions, unchanged
from launch.experiment.run import FILES, run_experiment
from launch.experiment.sets import Sets
from shards.errors import run_command
from shards.read.dataset import open_held_out

_EXAMPLE = """\
example: two recipes on your own shards
  colortrain compare --shards photos-64 --out runs/two --images 50000 \\
    --recipes nampouri_unet valentini_wgan
"""


def make_parser() -> CommandParser:
    """Return the parser of this command."""
    parser = CommandParser("compare", __doc__ or "", _EXAMPLE)
    parser.add_argument(
        "--shards",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder written by `colortrain shards build`",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the runs, the table and the images",
    )
    parser.add_argument(
        "--images",
        type=at_least_one,
        required=True,
        metavar="N",
        help="number of images that each recipe is trained on",
    )
    parser.add_argument(
        "--base-channels",
        type=at_least_one,
        default=16,
        metavar="N",
        help="base channels, the width of all networks (default: 16)",
    )
    add_network_arguments(parser)
    add_scoring_arguments(parser)
    return parser


def parse_options(argv: Sequence[str] | None) -> tuple[ExperimentOptions, Sets, int, Path | None]:
    """Return the options, the shards, the number of images, and the folder of --photos.

    Raises UserError for an unknown recipe, a missing folder or an invalid value.
    """
    args = make_parser().parse_args(argv)
    names = args.recipes or list(RECIPES)
    check_recipes(names)
    sets, size = Sets(args.shards, args.shards), open_held_out(args.shards).manifest.size
    open_photos(args.photos or args.shards, size)
    shared = shared_options(args, args.base_channels)
    networks = unchanged(*names)
    options = ExperimentOptions(table="comparison", networks=networks, size=size, **shared)
    return options, sets, args.images, args.photos


def main(argv: Sequence[str] | None = None) -> int:
    """Train and score all recipes, draw the images, and return the exit status."""
    options, sets, images, photos = parse_options(argv)
    num_gpus()  # raises if training cannot start
    plan = make_plan(options, Budget("images", images), sets)
    text = run_experiment(options, plan, sets, photos)
    print(f"\n{text}\n{options.out}: {FILES}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("compare", main))
