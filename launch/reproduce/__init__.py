"""The papers' tables, each from one command: shards, training, scores, a table, a picture and the conditions.

    python -m launch.reproduce cifar10 --source cifar-10-batches-bin --out runs/cifar10 --budget images:10000

tables
  nazeri   nazeri's CIFAR-10 table: both networks at their published size, on all colour pictures of the training
           split (grey ones left out and counted), scored on all 10,000 test pictures
  cifar10  every recipe and ours on CIFAR-10, the same number of images each
  photos   the same on a folder of photographs

The same command goes on where it stopped, and makes nothing twice. Other --recipes and --seeds add rows to the table:

    python -m launch.reproduce cifar10 ... --recipes flagship --seeds 0 1 2
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from colortrain.recipes import RECIPES
from launch.cli import CommandParser, at_least_one, at_least_zero
from launch.compare import draw, open_photos
from launch.reproduce import datasets, feature_classifier, table
from launch.reproduce.budget import Budget, budget, make_plan
from launch.reproduce.conditions import conditions
from launch.reproduce.entries import entries, finished_rows, score, train
from launch.reproduce.options import Asked, Plan
from shards.errors import UserError, unknown
from shards.files import write_atomic

_EXAMPLE = """\
example: ten minutes, from the archive to the table
  python -m launch.reproduce cifar10 --source cifar-10-batches-bin --out runs/cifar10 --budget minutes:10
"""


def parser() -> CommandParser:
    """The words this door understands."""
    words = CommandParser("launch.reproduce", __doc__ or "", _EXAMPLE)
    words.add_argument("table", choices=datasets.SIZES, help="which table")
    words.add_argument(
        "--source",
        type=Path,
        required=True,
        metavar="DIR",
        help="CIFAR-10's folder, or photographs",
    )
    words.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where everything goes"
    )
    words.add_argument(
        "--budget",
        type=budget,
        required=True,
        metavar="minutes:N|images:N|full",
        help="images each network sees: so many, what N minutes allow on this device, or the table's full number",
    )
    words.add_argument("--recipes", nargs="+", metavar="NAME", help="default: all of the table's")
    words.add_argument(
        "--seeds",
        nargs="+",
        type=at_least_zero,
        default=[0],
        metavar="N",
        help="train each with these; default 0",
    )
    words.add_argument(
        "--base-channels",
        type=at_least_one,
        default=16,
        metavar="N",
        help="width of all networks but nazeri's table's, which are as published (default: 16)",
    )
    words.add_argument(
        "--limit", type=at_least_one, metavar="N", help="score the first N held-out pictures only"
    )
    words.add_argument(
        "--photos", type=Path, metavar="DIR", help="draw the picture from this shard set instead"
    )
    return words


def asked_of(words: Sequence[str] | None) -> tuple[Asked, Budget, Path | None]:
    """What was asked for; raises `UserError`, before any work, for what there is not."""
    found = parser().parse_args(words)
    names = found.recipes or (datasets.NAZERI if found.table == "nazeri" else list(RECIPES))
    for name in names:
        if name not in RECIPES:
            raise unknown("recipe", name, RECIPES)
    if max(found.seeds) >= 2**63:
        raise UserError(f"--seeds {max(found.seeds)}: give whole numbers below 2^63")
    if not found.source.exists():
        raise UserError(f"--source {found.source}: there is nothing of that name")
    if found.photos:
        open_photos(found.photos, datasets.SIZES[found.table])
    asked = Asked(
        table=found.table,
        source=found.source,
        out=found.out,
        recipes=tuple(names),
        seeds=tuple(found.seeds),
        base_channels=None if found.table == "nazeri" else found.base_channels,
        limit=found.limit,
    )
    return asked, found.budget, found.photos


def make(asked: Asked, plan: Plan, built: datasets.Sets, photos: Path | None) -> str:
    """Train and score what is left to do; the table's text, written after every network."""
    weights = asked.out / "judge.safetensors"
    eyes = (
        feature_classifier.judge_for(asked.source, weights, plan.judge_images)
        if built.labelled
        else None
    )
    chosen = entries(asked, plan, built.size)
    for place, entry in enumerate(chosen, 1):
        print(f"\n== {entry.name} ({place} of {len(chosen)})", flush=True)
        train(entry, built.train)
        score(entry, built.held_out, plan.limit, eyes, curve=asked.table == "nazeri")
        results, others = finished_rows(asked.out, eyes)
        facts = {**conditions(asked, plan, built, eyes, results), "another_judges": others}
        text = table.markdown(asked.table, results, facts)
        document = {"conditions": facts, "results": results}
        write_atomic(asked.out / "table.json", json.dumps(document, indent=1).encode() + b"\n")
        write_atomic(asked.out / "table.md", text.encode())
    shown = {
        result["recipe"]: asked.out / f"{result['recipe']}-{result['seed']}"
        for result in reversed(results)
    }
    ordered = {name: shown[name] for name in RECIPES if name in shown}
    draw(ordered, photos or built.held_out, built.size, asked.out / "picture.png")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Build, train, score, tell."""
    asked, wanted, photos = asked_of(argv)
    built = datasets.build(asked.table, asked.source, asked.out / "shards")
    plan = make_plan(asked, wanted, built)
    print(
        f"\n{make(asked, plan, built, photos)}\n{asked.out}/table.md, table.json, picture.png",
        file=sys.stdout,
    )
    return 0
