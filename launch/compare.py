"""Every recipe on the same shards for the same number of images: one table beside grey, and one picture.

    python -m launch.compare --shards cifar-32 --out runs/compare --images 20000

Networks are made thin (--base-channels) and as deep as the shards' pixels allow; all else stays as published. The same
command goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colortrain.lab import stored_to_lab
from colortrain.metrics.evaluate import generate
from colortrain.metrics.registry import METRICS
from colortrain.recipe import Recipe, save_recipe
from colortrain.recipes import RECIPES, get_recipe
from colortrain.runs.checkpoint import latest_checkpoint, load_generator, load_state
from colortrain.runs.history import read_journal
from colortrain.runs.layout import evaluation_file
from colortrain.scale_down import scaled_down, without_downloads
from colortrain.visualize import save_png, titled_grid, to_grayscale
from launch.cli import CommandParser, at_least_one
from launch.processes import launcher, num_processes_for
from shards.color import lab_to_rgb
from shards.errors import UserError, run_command, unknown
from shards.files import write_atomic
from shards.read.dataset import Split, open_held_out

_EXAMPLE = """\
example: two recipes on your own shards
  python -m launch.compare --shards photos-64 --out runs/two --images 50000 --recipes nampouri_unet valentini_wgan
"""
_PHOTOS = 8


def prepared(name: str, size: int, base_channels: int, images: int) -> Recipe:
    """A recipe as this comparison trains it: thin, without downloads, evaluated and saved at its end alone."""
    try:
        recipe = scaled_down(without_downloads(get_recipe(name)), size, base_channels)
    except ValueError as error:
        raise UserError(
            f"{name} cannot be trained at {size} px: {error} (or leave it out: --recipes)"
        ) from None
    steps = -(-images // recipe.batch_size)
    log_every, checkpoint_every = max(1, steps // 50), max(1, steps // 4)
    return dataclasses.replace(
        recipe,
        images=images,
        log_every=log_every,
        evaluate_every=steps,
        checkpoint_every=checkpoint_every,
    )


def run_one(recipe: Recipe, shards: Path, folder: Path, limit: int | None) -> dict[str, Any]:
    """Train and score one recipe in processes of their own; what it scored, and the seconds its training took."""
    written = folder.parent / "recipes" / f"{recipe.name}.json"
    save_recipe(recipe, written)
    words = [
        "-m",
        "launch.train",
        "--recipe",
        str(written),
        "--shards",
        str(shards),
        "--run",
        str(folder),
    ]
    run(recipe.name, [*launcher(num_processes_for(recipe.batch_size)), *words, "--tracker", "none"])
    check_images(recipe, folder)
    scores = evaluation_file(folder)
    evaluate = [
        "-m",
        "launch.evaluate",
        "--run",
        str(folder),
        "--shards",
        str(shards),
        "--json",
        str(scores),
    ]
    run(recipe.name, [sys.executable, *evaluate, *(["--limit", str(limit)] if limit else [])])
    lines = read_journal(folder)
    seconds = sum(line["seconds"] for line in lines if line["kind"] == "train")
    return {"recipe": recipe.name, "seconds": seconds, **json.loads(scores.read_text())}


def check_images(recipe: Recipe, folder: Path) -> None:
    """Raise `UserError` if the network has seen more images than this comparison gives each."""
    latest = latest_checkpoint(folder)
    seen = load_state(latest)["images"] if latest else 0
    if seen >= recipe.total_images(1) + recipe.batch_size:
        raise UserError(
            f"{folder} was trained on {seen:,} images, more than --images: choose another --out"
        )


def run(name: str, line: Sequence[str | Path]) -> None:
    """Run a command, and stop with one line if it fails."""
    words = [str(word) for word in line]
    if status := subprocess.run(words, check=False).returncode:
        raise UserError(
            f"{name}: `{' '.join(words[1:])}` ended with status {status}; what it printed above says why"
        )


def markdown(results: Sequence[dict[str, Any]], images: int) -> str:
    """The table: recipes in rows, metrics in columns, grey first."""
    metrics = [name for name in METRICS if name in results[0]["metrics"]]
    head = ["recipe", *(METRICS[name].label for name in metrics), "seconds"]
    rows = [head, ["better", *(METRICS[name].symbol for name in metrics), ""]]
    for version in ("grey", "median", "truth"):
        values = [results[0]["metrics"][name].get(version) for name in metrics]
        if any(value is not None for value in values):
            rows.append(
                [
                    f"*{version}*",
                    *(number(name, v) for name, v in zip(metrics, values, strict=True)),
                    "",
                ]
            )
    for result in results:
        values = [result["metrics"][name]["generated"] for name in metrics]
        cells = [number(name, value) for name, value in zip(metrics, values, strict=True)]
        rows.append([f"`{result['recipe']}`", *cells, f"{result['seconds']:.0f}"])
    rows.insert(1, ["---", *["--:"] * (len(head) - 1)])
    protocol = results[0]["protocol"]
    caption = (
        f"{images:,} training images each; scored on {results[0]['samples']:,} samples of {protocol['split']} of "
        f"{protocol['dataset_id']}, {protocol['size']} px ({protocol['fit']}), dropout as each recipe says."
    )
    return "\n".join([caption, "", *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def number(metric: str, value: float | None) -> str:
    """A score with as many decimals as are worth printing."""
    return METRICS[metric].text(value)


def open_photos(shards: Path, size: int) -> Split:
    """The held-out split to draw from; raises `UserError` unless it holds pictures of the networks' size."""
    split = open_held_out(shards)
    if split.manifest.size != size:
        raise UserError(
            f"--photos {shards} holds {split.manifest.size} px, the networks are trained on {size}"
        )
    return split


def draw(runs: dict[str, Path], shards: Path, size: int, out: Path) -> None:
    """One picture: photographs in rows; grey, every recipe and the truth in columns."""
    split = open_photos(shards, size)
    lab = stored_to_lab(
        torch.from_numpy(
            split.read(np.unique(np.linspace(0, len(split) - 1, _PHOTOS).round().astype(int)))
        )
    )
    columns = [[to_grayscale(one) for one in lab.numpy()]]
    for folder in runs.values():
        generator, recipe, _ = load_generator(folder)
        columns.append(
            list(generate(generator, recipe.codec, lab, dropout=recipe.test_dropout).numpy())
        )
    columns.append(list(lab.numpy()))
    rows = [[lab_to_rgb(picture) for picture in row] for row in zip(*columns, strict=True)]
    save_png(
        titled_grid(rows, ["grey", *(name.replace("_", "\n", 1) for name in runs), "truth"]), out
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Train, score, draw."""
    words = CommandParser("launch.compare", __doc__ or "", _EXAMPLE)
    words.add_argument(
        "--shards", type=Path, required=True, help="folder that `python -m shards build` wrote"
    )
    words.add_argument(
        "--out", type=Path, required=True, help="folder for the runs, table and picture"
    )
    words.add_argument(
        "--images", type=at_least_one, required=True, help="how many images each recipe trains on"
    )
    words.add_argument(
        "--recipes", nargs="+", default=list(RECIPES), metavar="NAME", help="default: all of them"
    )
    words.add_argument(
        "--base-channels", type=at_least_one, default=16, help="width of all networks (default: 16)"
    )
    words.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="draw the picture from these shards (default: --shards)",
    )
    words.add_argument(
        "--limit", type=at_least_one, metavar="N", help="score the first N held-out samples only"
    )
    asked = words.parse_args(argv)
    for name in asked.recipes:
        if name not in RECIPES:
            raise unknown("recipe", name, RECIPES)
    size = open_held_out(asked.shards).manifest.size
    open_photos(asked.photos or asked.shards, size)
    recipes = [prepared(name, size, asked.base_channels, asked.images) for name in asked.recipes]
    results = []
    for place, recipe in enumerate(recipes, 1):
        print(f"\n== {recipe.name} ({place} of {len(recipes)})", flush=True)
        results.append(run_one(recipe, asked.shards, asked.out / recipe.name, asked.limit))
        write_atomic(asked.out / "table.json", json.dumps(results, indent=1).encode())
    table = markdown(results, asked.images)
    write_atomic(asked.out / "table.md", table.encode())
    runs = {recipe.name: asked.out / recipe.name for recipe in recipes}
    draw(runs, asked.photos or asked.shards, size, asked.out / "picture.png")
    print(f"\n{table}\n{asked.out}/table.md, table.json, picture.png")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("launch.compare", main))
