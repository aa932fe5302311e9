"""Colour photographs at their own resolution: their own lightness, joined with the colours of trained networks.

python -m launch.colorize --run runs/first --out coloured holiday/ grandmother.jpg
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from colortrain.inference.colorizer import Colorizer
from colortrain.visualize import recolor, save_jpeg, save_png, titled_grid, to_grayscale
from launch.cli import CommandParser, at_least_one
from launch.image_jobs import Job, Outcome, plan, read_batches, skip_existing
from launch.network_options import add_network_arguments, load_networks, named
from launch.video import check_video, colorize_film
from shards.color import lab_to_rgb, rgb_to_lab
from shards.errors import run_command
from shards.progress import ProgressLine
from shards.sources.decode import MAX_PIXELS

_EXAMPLE = """\
A folder's pictures keep their places below OUT; everything becomes PNG. Transparent parts become white. Films are named
one by one, become MP4 and keep their sound; their flicker is how far ab goes from a frame to the next, in CIELAB units,
where L changes by less than 1. Several runs write below OUT/RUN and share the sheet.
example: a folder and a file, and a sheet to look at
  python -m launch.colorize --run runs/first --out coloured --sheet sheet.png holiday/ grandmother.jpg
"""
_SHEET_ROWS = 64
_SHEET_SIDE = 192  # pixels of a picture on the sheet


def parser() -> argparse.ArgumentParser:
    """The words this door understands."""
    words = CommandParser(
        "launch.colorize",
        "Colour photographs with trained runs, at their own resolution.",
        _EXAMPLE,
    )
    words.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="picture, folder of pictures (recursive), or film",
    )
    add_network_arguments(words)
    words.add_argument("--out", required=True, type=Path, help="folder for the coloured pictures")
    words.add_argument(
        "--sheet", type=Path, metavar="FILE.png", help="also draw grey | coloured side by side"
    )
    existing = words.add_mutually_exclusive_group()
    existing.add_argument(
        "--force", action="store_true", help="overwrite pictures that are there already"
    )
    existing.add_argument(
        "--skip-existing", action="store_true", help="leave out pictures that are there already"
    )
    words.add_argument(
        "--batch-size",
        type=at_least_one,
        default=8,
        metavar="N",
        help="pictures at once; default 8",
    )
    words.add_argument(
        "--dropout",
        choices=("on", "off"),
        help="whether dropout stays on; default what the recipe says, in films off: its draws would flicker",
    )
    words.add_argument(
        "--max-pixels",
        type=at_least_one,
        default=MAX_PIXELS,
        metavar="N",
        help=f"refuse larger pictures as decompression bombs; default {MAX_PIXELS}",
    )
    return words


def colorize_all(
    jobs: Sequence[Job], networks: Mapping[str, Colorizer], arguments: argparse.Namespace
) -> Outcome:
    """Colour and write every picture and film that can be read."""
    outcome = Outcome()
    dropout = None if arguments.dropout is None else arguments.dropout == "on"
    stills = [job for job in jobs if not job.is_film]
    with ProgressLine("colouring", len(stills), "images", shown=bool(stills)) as progress:
        for batch in read_batches(stills, arguments.batch_size, arguments.max_pixels, outcome):
            images = [image for _, image in batch]
            seed = outcome.num_written
            colours = [
                network.predict_ab(images, dropout=dropout, seed=seed)
                for network in networks.values()
            ]
            del images
            for ab in zip(*colours, strict=True):
                _write(*_take_first(batch), ab, outcome, bool(arguments.sheet))
                progress.advance_to(outcome.num_written + len(outcome.failures))
    for job in jobs:
        if job.is_film:
            colorize_film(job, networks, arguments.batch_size, bool(dropout), outcome)
    return outcome


def _take_first(batch: list[tuple[Job, Image.Image]]) -> tuple[Job, np.ndarray]:
    """Take the first picture out of a batch, as an array: Pillow's own copy (4 bytes a pixel) can go."""
    job, image = batch.pop(0)
    return job, np.array(image)


def _write(
    job: Job, rgb: np.ndarray, colours: Sequence[np.ndarray], outcome: Outcome, shown: bool
) -> None:
    """One picture by every network; the last one colours the array itself, for a copy may be 300 MB."""
    row = []
    for target, ab in zip(job.targets, colours, strict=True):
        own = rgb if ab is colours[-1] else rgb.copy()
        recolor(own, ab)
        save_png(own, target)
        if shown and len(outcome.rows) < _SHEET_ROWS:
            small = ImageOps.pad(Image.fromarray(own), (_SHEET_SIDE, _SHEET_SIDE), color="white")
            row.append(np.asarray(small))
    outcome.num_written += 1
    if row:
        outcome.rows.append([lab_to_rgb(to_grayscale(rgb_to_lab(row[0]))), *row])


def write_sheet(outcome: Outcome, networks: Sequence[str], path: Path) -> None:
    """Grey beside what each network made of it."""
    titles = ["grey", "coloured"] if len(networks) == 1 else ["grey", *networks]
    sheet = titled_grid(
        outcome.rows, titles, 1 if len(outcome.rows) < 5 or len(networks) > 2 else 2
    )
    (save_png if path.suffix.lower() == ".png" else save_jpeg)(sheet, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Colour; returns the exit status: 1 if some pictures could not be read."""
    arguments = parser().parse_args(argv)
    names = list(named(arguments.run))
    jobs = plan(arguments.inputs, arguments.out, names)
    jobs = skip_existing(jobs, arguments.sheet, arguments.force, arguments.skip_existing)
    check_video(jobs)
    outcome = colorize_all(jobs, load_networks(arguments), arguments)
    if arguments.sheet and outcome.rows:
        write_sheet(outcome, names, arguments.sheet)
    for line in outcome.failures:
        print(f"not coloured: {line}", file=sys.stderr)
    print(
        "\n".join(
            [
                *outcome.lines,
                f"{outcome.num_written:,} of {len(jobs):,} pictures coloured into {arguments.out}",
            ]
        )
    )
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(run_command("launch.colorize", main))
