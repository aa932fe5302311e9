"""Reproduce the papers' tables: build shards, train, score, and write a table.

    colortrain reproduce nampouri --source train2014 --out runs/nampouri --budget full

Each table has the paper's own scores, those of the networks trained here, and of
grayscale images. By default images and networks have the published size; --budget,
--size and --base-channels scale an experiment to what a machine can do. The results are
OUT/table.md and table.json, OUT/picture.png (photographs by all networks) and
OUT/curves.png (losses by epoch).

After an interruption the same command resumes. With other --recipes or --seeds, it adds
rows to the table.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from colortrain.distributed.device import num_gpus
from launch.cli import CommandParser, at_least_one
from launch.experiment import feature_classifier
from launch.experiment.arguments import (
    add_network_arguments,
    add_scoring_arguments,
    check_recipes,
    shared_options,
)
from launch.experiment.budget import Budget, make_plan, parse_budget
from launch.experiment.figures import open_photos
from launch.experiment.options import ExperimentOptions
from launch.experiment.run import FILES, run_experiment
from launch.reproduce.tables import TABLES, select
from shards.errors import UserError

_EXAMPLE = """\
example: the table of all recipes in ten minutes
  colortrain reproduce cifar10 --source cifar-10-batches-bin --out runs/cifar10 --budget minutes:10
example: the networks of one paper, scaled down to an hour on a CPU
  colortrain reproduce nampouri --source photos --out runs/nampouri --budget minutes:60 \\
    --size 64 --base-channels 16
"""


def make_parser() -> CommandParser:
    """Return the parser of this command."""
    parser = CommandParser("reproduce", f"{__doc__}\ntables:\n{_list_tables()}", _EXAMPLE)
    parser.add_argument("table", choices=TABLES, help="the table to reproduce (see above)")
    parser.add_argument(
        "--source",
        type=Path,
        required=True,
        metavar="DIR",
        help="CIFAR-10's folder, or a folder of photographs",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for shards, runs and results"
    )
    parser.add_argument(
        "--budget",
        type=parse_budget,
        required=True,
        metavar="minutes:N|images:N|full",
        help="number of images that each network is trained on: as many as this device trains on "
        "in N minutes (minutes:N), N (images:N), or the table's full number (full)",
    )
    parser.add_argument(
        "--size",
        type=at_least_one,
        metavar="N",
        help="side of the images in pixels (default: the published size)",
    )
    parser.add_argument(
        "--base-channels",
        type=at_least_one,
        metavar="N",
        help="base channels, the width of all networks (default: the published width; 16 in the "
        "tables cifar10 and photos)",
    )
    add_network_arguments(parser)
    add_scoring_arguments(parser)
    return parser


def _list_tables() -> str:
    width = max(map(len, TABLES))
    indent = " " * (width + 4)
    return "\n".join(
        textwrap.fill(
            table.about, 88, initial_indent=f"  {name:{width}}  ", subsequent_indent=indent
        )
        for name, table in TABLES.items()
    )


def parse_options(
    argv: Sequence[str] | None,
) -> tuple[ExperimentOptions, Budget, Path, Path | None]:
    """Return the options, the values of --budget and --source, and of --photos or None.

    Raises UserError for an unknown recipe, a missing folder or an invalid value.
    """
    args = make_parser().parse_args(argv)
    table = TABLES[args.table]
    recipes = args.recipes or []
    check_recipes(recipes)
    size = args.size or table.size
    base_channels = args.base_channels or table.base_channels
    shared = shared_options(args, base_channels, table.metrics)
    if not args.source.exists():
        raise UserError(f"--source {args.source} does not exist: check the path")
    if args.photos:
        open_photos(args.photos, size)
    options = ExperimentOptions(
        table=args.table,
        networks=select(table, recipes),
        size=size,
        history=table.history,
        full_images=table.full_images,
        **shared,
    )
    return options, args.budget, args.source, args.photos


def main(argv: Sequence[str] | None = None) -> int:
    """Build shards, train, score, print the table, and return the exit status."""
    options, budget, source, photos = parse_options(argv)
    num_gpus()  # raises before the shards are built if training cannot start
    table = TABLES[options.table]
    sets = table.build(source, options.out / "shards", options.size)
    plan = make_plan(options, budget, sets)
    path = options.out / "classifier.safetensors"
    classifier = (
        feature_classifier.load_or_train(source, path, plan.classifier_images)
        if table.labelled
        else None
    )
    text = run_experiment(options, plan, sets, photos, classifier)
    print(f"\n{text}\n{options.out}: {FILES}")
    return 0
