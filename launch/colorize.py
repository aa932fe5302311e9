"""Colorize photographs and videos at full resolution, keeping their own lightness.

colortrain colorize --run runs/first --out colorized holiday/ grandmother.jpg
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
from launch.image_jobs import Job, Outcome, plan_jobs, read_batches, select_jobs
from launch.network_options import add_network_arguments, load_networks, name_runs
from launch.video import check_video, colorize_video
from shards.color import lab_to_rgb, rgb_to_lab
from shards.errors import run_command
from shards.progress import ProgressLine
from shards.sources.decode import MAX_PIXELS

_EXAMPLE = """\
Images of a folder keep their relative paths below OUT and are written as PNG; transparent
parts become white. A video must be given as an INPUT itself, because folders are searched for
images only; it is written as MP4 with its sound.
The flicker of a video is the mean change of ab between two frames, in CIELAB units, over the
pixels whose L changes by less than 1. Several runs write to OUT/RUN, and to one contact sheet.

example: a folder and a file, and a contact sheet
  colortrain colorize --run runs/first --out colorized --sheet sheet.png holiday/ grandmother.jpg
"""
_SHEET_ROWS = 64
_SHEET_SIDE = 192  # pixels of an image on the sheet


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = CommandParser(
        "colorize", "Colorize photographs and videos at full resolution.", _EXAMPLE
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="an image, a folder of images (searched recursively), or a video",
    )
    add_network_arguments(parser)
    parser.add_argument("--out", required=True, type=Path, help="folder for the colorized images")
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE.png",
        help="also write a contact sheet: each image in grayscale next to its colorized versions",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--force", action="store_true", help="overwrite existing images")
    existing.add_argument("--skip-existing", action="store_true", help="skip existing images")
    parser.add_argument(
        "--batch-size",
        type=at_least_one,
        default=8,
        metavar="N",
        help="images per batch (default: 8)",
    )
    parser.add_argument(
        "--dropout",
        choices=("on", "off"),
        help="dropout at inference (default: the recipe's setting; off for videos, where random "
        "masks would flicker)",
    )
    parser.add_argument(
        "--max-pixels",
        type=at_least_one,
        default=MAX_PIXELS,
        metavar="N",
        help="reject images with more than N pixels as decompression bombs "
        f"(default: {MAX_PIXELS:,})",
    )
    return parser


def colorize_all(
    jobs: Sequence[Job], networks: Mapping[str, Colorizer], args: argparse.Namespace
) -> Outcome:
    """Colorize all images and videos with every network, and write the results.

    `networks` are by name. Returns which inputs were written and which could not be
    read.
    """
    outcome = Outcome()
    dropout = None if args.dropout is None else args.dropout == "on"
    images = [job for job in jobs if not job.is_video]
    with ProgressLine("colorizing", len(images), "images", shown=bool(images)) as progress:
        for batch in read_batches(images, args.batch_size, args.max_pixels, outcome):
            decoded = [image for _, image in batch]
            seed = outcome.num_written
            colours = [
                network.predict_ab(decoded, dropout=dropout, seed=seed)
                for network in networks.values()
            ]
            del decoded
            for ab in zip(*colours, strict=True):
                _write(*_pop_first(batch), ab, outcome, bool(args.sheet))
                progress.advance_to(outcome.num_written + len(outcome.failures))
    for job in jobs:
        if job.is_video:
            colorize_video(job, networks, args.batch_size, bool(dropout), outcome)
    return outcome


def _pop_first(batch: list[tuple[Job, Image.Image]]) -> tuple[Job, np.ndarray]:
    """Remove the first image from a batch; return its job and the image as an array.

    The array is (H, W, 3) uint8. The removal frees Pillow's own copy of the image,
    which takes 4 bytes per pixel.
    """
    job, image = batch.pop(0)
    return job, np.array(image)


def _write(
    job: Job, rgb: np.ndarray, colours: Sequence[np.ndarray], outcome: Outcome, on_sheet: bool
) -> None:
    """Write one image once per network, with the colours that the network predicted.

    rgb: (H, W, 3) uint8, the image; it is overwritten with the last result, because a
    copy may take 300 MB. colours: for each network (2, h, w), ab in CIELAB units. With
    `on_sheet`, thumbnails are kept in `outcome` for the contact sheet.
    """
    thumbnails = []
    for target, ab in zip(job.targets, colours, strict=True):
        colorized = rgb if ab is colours[-1] else rgb.copy()
        recolor(colorized, ab)
        save_png(colorized, target)
        if on_sheet and len(outcome.sheet_rows) < _SHEET_ROWS:
            side = (_SHEET_SIDE, _SHEET_SIDE)
            small = ImageOps.pad(Image.fromarray(colorized), side, color="white")
            thumbnails.append(np.asarray(small))
    outcome.num_written += 1
    if thumbnails:
        grayscale = lab_to_rgb(to_grayscale(rgb_to_lab(thumbnails[0])))
        outcome.sheet_rows.append([grayscale, *thumbnails])


def write_sheet(outcome: Outcome, networks: Sequence[str], path: Path) -> None:
    """Write the contact sheet: a grayscale column, then one column per network.

    `networks` are the names of the networks.
    """
    titles = ["grayscale", "colorized"] if len(networks) == 1 else ["grayscale", *networks]
    per_row = 1 if len(outcome.sheet_rows) < 5 or len(networks) > 2 else 2
    sheet = titled_grid(outcome.sheet_rows, titles, per_row)
    (save_png if path.suffix.lower() == ".png" else save_jpeg)(sheet, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Colorize the inputs; return the exit status, 1 if some could not be read."""
    args = make_parser().parse_args(argv)
    names = list(name_runs(args.run))
    jobs = plan_jobs(args.inputs, args.out, names)
    jobs = select_jobs(jobs, args.sheet, args.force, args.skip_existing)
    check_video(jobs)
    outcome = colorize_all(jobs, load_networks(args), args)
    if args.sheet and outcome.sheet_rows:
        write_sheet(outcome, names, args.sheet)
    for line in outcome.failures:
        print(f"not colorized: {line}", file=sys.stderr)
    summary = f"{outcome.num_written:,} of {len(jobs):,} inputs colorized, written to {args.out}"
    print("\n".join([*outcome.video_lines, summary]))
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(run_command("colorize", main))
