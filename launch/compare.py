"""Train recipes on the same shards for the same number of images and compare them.

    colortrain compare --shards cifar-32 --out runs/compare --images 20000

Networks are scaled down in width (--base-channels) and in depth to fit the images. A
row says so if its system lacks pretrained weights, or ends before its schedules change;
everything else is as published. After an interruption the same command resumes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colortrain.differences import differences, stretched
from colortrain.lab import stored_to_lab
from colortrain.metrics.evaluate import generate
from colortrain.metrics.registry import METRICS, Metric
from colortrain.metrics.score_tables import COLUMNS, LABELS
from colortrain.recipe import Plateau, Recipe, save_recipe
from colortrain.recipes import RECIPES, get_recipe
from colortrain.runs.checkpoint import latest_checkpoint, load_generator, load_state
from colortrain.runs.history import Evaluation, read_journal
from colortrain.runs.layout import evaluation_file
from colortrain.scale_down import (
    WITHOUT_DOWNLOADS,
    PretrainedWeights,
    scaled_down,
    with_weights,
)
from colortrain.visualize import save_png, titled_grid, to_grayscale
from launch.cli import CommandParser, at_least_one
from launch.processes import training_launcher
from shards.color import gamut_mapped_rgb
from shards.errors import UserError, run_command, unknown
from shards.files import write_atomic
from shards.json_files import read_json
from shards.read.dataset import Split, open_held_out

_EXAMPLE = """\
example: two recipes on your own shards
  colortrain compare --shards photos-64 --out runs/two --images 50000 \\
    --recipes nampouri_unet valentini_wgan
"""
_PHOTOS = 8  # rows of the image
_CHECKPOINTS = 4  # per training
_LOG_LINES = 50  # per training


def prepare_recipe(
    name: str,
    size: int,
    base_channels: int,
    images: int,
    weights: PretrainedWeights = WITHOUT_DOWNLOADS,
) -> Recipe:
    """Return the recipe `name`, scaled down to images of `size` pixels.

    base_channels: width of its networks; images: number of images to train on;
    weights: pretrained weights, for systems that need them. Raises UserError if its
    networks cannot be built for this size.
    """
    try:
        recipe = scaled_down(with_weights(get_recipe(name), weights), size, base_channels)
    except ValueError as error:
        reason = str(error).partition(": set ")[0]  # this command has no --set
        raise UserError(
            f"{name} cannot be trained at {size} px ({reason}): "
            "give shards of another --size, or select other recipes with --recipes"
        ) from None
    steps = -(-images // recipe.batch_size)
    return dataclasses.replace(
        recipe,
        images=images,
        plateau=Plateau(),  # there is one validation, at the end
        log_every=max(1, steps // _LOG_LINES),
        evaluate_every=steps,  # only at the end
        checkpoint_every=max(1, steps // _CHECKPOINTS),
    )


def train_and_score(recipe: Recipe, shards: Path, run: Path, limit: int | None) -> dict[str, Any]:
    """Train one recipe in the folder `run`, then score it, in separate processes.

    limit: number of held-out samples to score (None: all). Returns the contents of
    evaluation.json, with the recipe's name, what it lacks of its paper's system, the
    seconds of training and the numbers of processes added. Raises UserError if a
    process fails.
    """
    recipe_file = run.parent / "recipes" / f"{recipe.name}.json"
    save_recipe(recipe, recipe_file)
    train = ["-m", "launch.train", "--recipe", recipe_file, "--shards", shards, "--run", run]
    run_process(recipe.name, [*training_launcher(recipe), *train, "--tracker", "none"])
    check_images(recipe, run)
    scores = evaluation_file(run)
    evaluate = ["-m", "launch.evaluate", "--run", run, "--shards", shards, "--json", scores]
    limited = ["--limit", str(limit)] if limit else []
    run_process(recipe.name, [sys.executable, *evaluate, *limited])
    lines = read_journal(run)
    cost = {
        "differences": differences(recipe, len(Split(shards, "train"))),
        "seconds": sum(line.get("seconds", 0.0) for line in lines if line["kind"] == "train"),
        "processes": sorted({line["world"] for line in lines if line["kind"] == "start"}),
    }
    return {"recipe": recipe.name, **cost, **read_json(scores, Evaluation, "try again")}


def check_images(recipe: Recipe, run: Path) -> None:
    """Raise UserError if a run was trained on more images than its recipe says."""
    latest = latest_checkpoint(run)
    seen = load_state(latest)["images"] if latest else 0
    # An earlier comparison in the same folder had a larger --images.
    if seen >= recipe.total_images(1) + recipe.batch_size:
        raise UserError(
            f"{run} was trained on {seen:,} images, more than --images: choose another --out"
        )


def run_process(name: str, command: Sequence[object]) -> None:
    """Run a command and wait for its end.

    Raises UserError, with a message that starts with `name`, if the command fails.
    """
    args = [str(arg) for arg in command]
    if status := subprocess.run(args, check=False).returncode:
        raise UserError(
            f"{name}: `{' '.join(args[1:])}` failed with exit status {status}; see its output above"
        )


def markdown(results: Sequence[dict[str, Any]], images: int) -> str:
    """Return a Markdown table of scores, with a row for each baseline and recipe.

    results: scores and seconds of training of each recipe; images: number of images
    that each recipe was trained on.
    """
    metrics = [metric for metric in METRICS.values() if metric.name in results[0]["metrics"]]
    head = ["recipe", *(metric.label for metric in metrics), "seconds"]
    rows = [
        head,
        ["---", *["--:"] * (len(head) - 1)],
        ["better", *(metric.symbol for metric in metrics), ""],
    ]
    for version in COLUMNS[1:]:
        cells = _cells(results[0], metrics, version)
        if any(cells):
            rows.append([f"*{LABELS[version]}*", *cells, ""])
    for result in results:
        cells = _cells(result, metrics, "generated")
        rows.append([row_name(result), *cells, f"{result['seconds']:.0f}"])
    protocol = results[0]["protocol"]
    processes = ", ".join(map(str, sorted({n for row in results for n in row["processes"]})))
    caption = (
        f"{images:,} training images each, processes per network: {processes}; "
        f"scored on {results[0]['samples']:,} samples of "
        f"{protocol['split']} of {protocol['dataset_id']}, {protocol['size']} px "
        f"({protocol['fit']}), dropout as in each recipe."
    )
    lines = [caption, "", *("| " + " | ".join(row) + " |" for row in rows)]
    note = differences_note(results)
    return "\n".join([*lines, *([""] if note else []), *note]) + "\n"


def row_name(result: dict[str, Any]) -> str:
    """Return the name of a network in a table, and what it lacks of the paper's."""
    different = result.get("differences") or []
    return f"`{result['recipe']}`" + (f" ({', '.join(different)})" if different else "")


def differences_note(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return a note about the rows that lack something of their papers, or no note."""
    if not any(result.get("differences") for result in results):
        return []
    return [
        "Rows with a remark in brackets are not their papers' systems as published: --vgg16 and "
        "--resnet18 give pretrained weights, --stretch-schedules fits schedules to the run."
    ]


def _cells(result: dict[str, Any], metrics: Sequence[Metric], version: str) -> list[str]:
    scores = result["metrics"]
    return [metric.text(scores[metric.name].get(version)) for metric in metrics]


def open_photos(shards: Path, size: int) -> Split:
    """Return the held-out split of `shards`, whose photographs are to be drawn.

    Raises UserError unless its samples have `size` pixels.
    """
    split = open_held_out(shards)
    if split.manifest.size != size:
        raise UserError(
            f"--photos {shards} has samples of {split.manifest.size} px, but the networks are "
            f"trained at {size} px: give other shards"
        )
    return split


def draw_comparison(runs: dict[str, Path], shards: Path, size: int, out: Path) -> None:
    """Draw photographs as each run colorizes them, and write the image to `out`.

    runs: run folders by recipe name; shards: shard set whose held-out photographs are
    drawn, one per row. Raises UserError unless its samples have `size` pixels.
    """
    split = open_photos(shards, size)
    chosen = np.unique(np.linspace(0, len(split) - 1, _PHOTOS).round().astype(int))
    lab = stored_to_lab(torch.from_numpy(split.read(chosen)))
    columns = [[to_grayscale(one) for one in lab.numpy()]]
    for run in runs.values():
        generator, recipe, _ = load_generator(run)
        generated = generate(generator, recipe.codec, lab, dropout=recipe.test_dropout)
        columns.append(list(generated.numpy()))
    columns.append(list(lab.numpy()))
    rows = [[gamut_mapped_rgb(image) for image in row] for row in zip(*columns, strict=True)]
    titles = [LABELS["grey"], *(name.replace("_", "\n", 1) for name in runs), LABELS["truth"]]
    save_png(titled_grid(rows, titles), out)


def make_parser() -> argparse.ArgumentParser:
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
        help="folder for the runs, the table and the image",
    )
    parser.add_argument(
        "--images",
        type=at_least_one,
        required=True,
        metavar="N",
        help="number of images that each recipe is trained on",
    )
    parser.add_argument(
        "--recipes",
        nargs="+",
        default=list(RECIPES),
        metavar="NAME",
        help="the recipes to compare (default: all)",
    )
    parser.add_argument(
        "--base-channels",
        type=at_least_one,
        default=16,
        metavar="N",
        help="base channels, the width of all networks (default: 16)",
    )
    add_fidelity_arguments(parser)
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="shards whose photographs the image shows (default: those of --shards)",
    )
    parser.add_argument(
        "--limit", type=at_least_one, metavar="N", help="score the first N held-out samples only"
    )
    return parser


def add_fidelity_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that make recipes more like their papers to a parser."""
    parser.add_argument(
        "--vgg16",
        default="random",
        metavar="imagenet|FILE",
        help="weights of the VGG-16 in perceptual losses (default: random ones)",
    )
    parser.add_argument(
        "--resnet18",
        metavar="imagenet|FILE",
        help="weights of the ResNet-18 in generators; requires --base-channels 64 (default: none)",
    )
    parser.add_argument(
        "--stretch-schedules",
        action="store_true",
        help="let the schedules of each recipe span the run instead of the paper's epochs",
    )


def pretrained_weights(args: argparse.Namespace) -> PretrainedWeights:
    """Return the weights that the options name.

    Raises UserError if a file does not exist, or if the networks are too narrow.
    """
    for option, name in (("--vgg16", args.vgg16), ("--resnet18", args.resnet18)):
        if name not in (None, "imagenet", "random") and not Path(name).is_file():
            raise UserError(f"{option} {name}: no such file; give one, or imagenet")
    if args.resnet18 and args.base_channels != 64:
        raise UserError("--resnet18: the weights of ResNet-18 require --base-channels 64")
    return PretrainedWeights(args.vgg16, args.resnet18)


def main(argv: Sequence[str] | None = None) -> int:
    """Train and score all recipes, draw the image, and return the exit status."""
    args = make_parser().parse_args(argv)
    for name in args.recipes:
        if name not in RECIPES:
            raise unknown("recipe", name, RECIPES)
    size = open_held_out(args.shards).manifest.size
    open_photos(args.photos or args.shards, size)
    weights = pretrained_weights(args)
    recipes = [
        prepare_recipe(name, size, args.base_channels, args.images, weights)
        for name in args.recipes
    ]
    recipes = [stretched(recipe) for recipe in recipes] if args.stretch_schedules else recipes
    runs = {recipe.name: args.out / recipe.name for recipe in recipes}
    results = []
    for number, recipe in enumerate(recipes, 1):
        print(f"\n== {recipe.name} ({number} of {len(recipes)})", flush=True)
        results.append(train_and_score(recipe, args.shards, runs[recipe.name], args.limit))
        write_atomic(args.out / "table.json", json.dumps(results, indent=1).encode())
    table = markdown(results, args.images)
    write_atomic(args.out / "table.md", table.encode())
    draw_comparison(runs, args.photos or args.shards, size, args.out / "picture.png")
    print(f"\n{table}\n{args.out}/table.md, table.json, picture.png")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("compare", main))
