"""Reproduce the papers' tables: build shards, train, score, and write a table.

    colortrain reproduce cifar10 --source cifar-10-batches-bin --out runs/cifar10 \\
        --budget images:10000

tables:
  nazeri   the CIFAR-10 table of the paper by Nazeri et al.: its GAN and its U-Net at
           their published size, trained on the colour images of the training split,
           and scored on all 10,000 test images
  cifar10  all recipes on CIFAR-10, each trained on the same number of images
  photos   all recipes on a folder of photographs

After an interruption the same command resumes. With other --recipes or --seeds, it adds
rows to the table:

    colortrain reproduce cifar10 ... --recipes flagship --seeds 0 1 2
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from colortrain.distributed.device import num_gpus
from colortrain.recipes import RECIPES
from launch.cli import CommandParser, at_least_one, at_least_zero
from launch.compare import (
    add_fidelity_arguments,
    draw_comparison,
    open_photos,
    pretrained_weights,
)
from launch.reproduce import datasets, feature_classifier, table
from launch.reproduce.budget import Budget, make_plan, parse_budget
from launch.reproduce.conditions import conditions
from launch.reproduce.entries import finished_rows, make_entries, score, train
from launch.reproduce.options import Plan, ReproduceOptions
from shards.errors import UserError, unknown
from shards.files import write_atomic

_EXAMPLE = """\
example: the table of all recipes in ten minutes
  colortrain reproduce cifar10 --source cifar-10-batches-bin --out runs/cifar10 --budget minutes:10
"""


def make_parser() -> CommandParser:
    """Return the parser of this command."""
    parser = CommandParser("reproduce", __doc__ or "", _EXAMPLE)
    parser.add_argument("table", choices=datasets.SIZES, help="the table to reproduce")
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
        "--recipes",
        nargs="+",
        metavar="NAME",
        help="recipes to train (default: all recipes of the table)",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=at_least_zero,
        default=[0],
        metavar="N",
        help="train each recipe with each of these seeds (default: 0)",
    )
    parser.add_argument(
        "--base-channels",
        type=at_least_one,
        default=16,
        metavar="N",
        help="base channels, the width of all networks, except in the table nazeri, which has "
        "the published width (default: 16)",
    )
    add_fidelity_arguments(parser)
    parser.add_argument(
        "--limit", type=at_least_one, metavar="N", help="score the first N held-out images only"
    )
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="shard set whose photographs the image shows (default: the held-out images)",
    )
    return parser


def parse_options(
    argv: Sequence[str] | None,
) -> tuple[ReproduceOptions, Budget, Path | None]:
    """Return the options, the value of --budget, and the folder of --photos or None.

    Raises UserError for an unknown recipe, a missing folder or an invalid value.
    """
    args = make_parser().parse_args(argv)
    names = args.recipes or (datasets.NAZERI if args.table == "nazeri" else list(RECIPES))
    for name in names:
        if name not in RECIPES:
            raise unknown("recipe", name, RECIPES)
    if max(args.seeds) >= 2**63:
        raise UserError(f"--seeds {max(args.seeds)}: give whole numbers below 2^63")
    if not args.source.exists():
        raise UserError(f"--source {args.source} does not exist: check the path")
    if args.photos:
        open_photos(args.photos, datasets.SIZES[args.table])
    options = ReproduceOptions(
        table=args.table,
        source=args.source,
        out=args.out,
        recipes=tuple(names),
        seeds=tuple(args.seeds),
        base_channels=None if args.table == "nazeri" else args.base_channels,
        limit=args.limit,
        weights=pretrained_weights(args),
        stretch_schedules=args.stretch_schedules,
    )
    return options, args.budget, args.photos


def make_table(
    options: ReproduceOptions, plan: Plan, sets: datasets.Sets, photos: Path | None
) -> str:
    """Train and score the networks that are not finished; return the table as Markdown.

    OUT/table.json and OUT/table.md are written after each network, OUT/picture.png at
    the end. photos: shard set whose photographs picture.png shows, or None for the
    held-out images. Raises UserError if training or scoring fails.
    """
    out = options.out
    classifier = (
        feature_classifier.load_or_train(
            options.source, out / "judge.safetensors", plan.judge_images
        )
        if sets.labelled
        else None
    )
    entries = make_entries(options, plan, sets.size)
    for number, entry in enumerate(entries, 1):
        print(f"\n== {entry.name} ({number} of {len(entries)})", flush=True)
        train(entry, sets.train)
        score(entry, sets.held_out, plan.limit, classifier, curve=options.table == "nazeri")
        results, others = finished_rows(out, classifier)
        facts = conditions(options, plan, sets, classifier, results)
        facts["another_judges"] = others
        text = table.markdown(options.table, results, facts)
        document = {"conditions": facts, "results": results}
        write_atomic(out / "table.json", json.dumps(document, indent=1).encode() + b"\n")
        write_atomic(out / "table.md", text.encode())
    # for each recipe, the run with the first seed
    runs = {
        result["recipe"]: out / f"{result['recipe']}-{result['seed']}"
        for result in reversed(results)
    }
    ordered = {name: runs[name] for name in RECIPES if name in runs}
    draw_comparison(ordered, photos or sets.held_out, sets.size, out / "picture.png")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Build shards, train, score, print the table, and return the exit status."""
    options, budget, photos = parse_options(argv)
    num_gpus()  # raises before the shards are built if training cannot start
    sets = datasets.build(options.table, options.source, options.out / "shards")
    plan = make_plan(options, budget, sets)
    text = make_table(options, plan, sets, photos)
    print(f"\n{text}\n{options.out}/table.md, table.json, picture.png")
    return 0
