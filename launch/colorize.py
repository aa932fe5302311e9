"""Colorize photographs at full resolution, keeping their own lightness.

colortrain colorize --run runs/first --out colorized holiday/ grandmother.jpg
"""

from __future__ import annotations

import argparse
import errno
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import ImageOps

from colortrain.inference.colorizer import Colorizer
from colortrain.out_of_memory import explain_out_of_memory
from colortrain.visualize import recolor, save_jpeg, save_png, titled_grid, to_grayscale
from launch.cli import CommandParser, at_least_one
from launch.colorize_journal import Journal, earlier_results, select_jobs
from launch.image_jobs import (
    FileVersion,
    Job,
    Outcome,
    Photograph,
    check_sheet,
    find_inputs,
    plan_jobs,
    read_batches,
)
from launch.network_options import add_network_arguments, load_networks, name_runs
from launch.video import check_video, colorize_video
from shards.color import gamut_mapped_rgb, rgb_to_lab
from shards.errors import UserError, run_command
from shards.progress import ProgressLine
from shards.sources.decode import MAX_PIXELS, UndecodableError, decode_image

_EXAMPLE = """\
Images of a folder keep their relative paths below OUT and are written as PNG; transparent
parts become white. Of a.jpg and a.png in one folder, the first becomes a.jpg.png. Dates and
dots per inch are kept, and the colours are tagged as sRGB; other metadata (place, camera, names)
is not. Of files with several pages or frames, the first is colorized. A video must be given as
an INPUT itself, because folders are searched for images only; it is written as MP4 with its
sound.
OUT/colorized.jsonl lists what was written. After an interruption, the same command resumes.
The flicker of a video is the mean change of ab between two frames, in CIELAB units, over the
pixels whose L changes by less than 1. Several runs write to OUT/RUN, and to one contact sheet.

example: a folder and a file, and a contact sheet
  colortrain colorize --run runs/first --out colorized --sheet sheet.png holiday/ grandmother.jpg
"""
# Errors of writing one file that all others would have too.
_FATAL = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    errno.EMFILE,
    errno.ENFILE,
)
_MEMORY_ADVICE = "give a --batch-size below {}, or --device cpu; the same command resumes"
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
    existing.add_argument("--force", action="store_true", help="overwrite existing files")
    existing.add_argument(
        "--skip-existing", action="store_true", help="keep existing files, whoever wrote them"
    )
    parser.add_argument(
        "--by-content",
        action="store_true",
        help="in folders, colorize all files whose content is an image, whatever their extension",
    )
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
    jobs: Sequence[Job],
    networks: Mapping[str, Colorizer],
    journal: Journal,
    args: argparse.Namespace,
) -> Outcome:
    """Colorize all images and videos with every network, and write the results.

    Returns how many inputs were colorized, and a line about each that could not be read
    or written.
    """
    outcome = Outcome()
    images = [job for job in jobs if not job.is_video]
    with ProgressLine("colorizing", len(images), "images", shown=bool(images)) as progress:
        for batch in read_batches(images, args.batch_size, args.max_pixels, outcome):
            colours = [
                _predict(network, batch, journal.use_dropout(number, batch[0].job))
                for number, network in enumerate(networks.values())
            ]
            for ab in zip(*colours, strict=True):
                _colorize_image(batch.pop(0), ab, journal, outcome)
                progress.advance_to(outcome.num_written + len(outcome.failures))
    for job in jobs:
        if job.is_video:
            _colorize_video(job, networks, journal, args.batch_size, outcome)
    return outcome


def _predict(network: Colorizer, batch: Sequence[Photograph], dropout: bool) -> list[np.ndarray]:
    """Return ab (2, h, w) of each image of a batch, in CIELAB units."""
    images = [photograph.image for photograph in batch]
    if not dropout:
        return list(network.predict_ab(images, dropout=False))
    # One by one: the random masks for an image then do not depend on its batch, and
    # its colours are the same after a resume.
    return [network.predict_ab([image], dropout=True)[0] for image in images]


def _colorize_image(
    photograph: Photograph, colours: Sequence[np.ndarray], journal: Journal, outcome: Outcome
) -> None:
    """Write one image once per network, in that network's colours; update `outcome`.

    colours: for each network (2, h, w), ab in CIELAB units.
    """
    job, metadata = photograph.job, photograph.metadata
    rgb = np.array(photograph.image)
    del photograph.image  # Pillow's own copy takes 4 bytes per pixel
    try:
        for number, (target, ab) in enumerate(zip(job.targets, colours, strict=True)):
            if target not in job.kept:
                # A copy may take 300 MB.
                colorized = rgb if number == len(colours) - 1 else rgb.copy()
                recolor(colorized, ab)
                with journal.writing(target, job, number, photograph.version):
                    save_png(colorized, target, **metadata.png_options())
    except OSError as error:
        _add_failure(job, error, outcome)
        return
    outcome.num_written += 1
    if metadata.num_pages > 1:
        outcome.notes.append(f"{job.source}: first page of {metadata.num_pages}")


def _add_failure(job: Job, error: OSError, outcome: Outcome) -> None:
    """Add a line to `outcome` about a file that could not be written.

    Raises `error` again if it would also occur with every other file.
    """
    if error.errno in _FATAL:
        raise error
    where = f" ({error.filename})" if error.filename else ""
    outcome.failures.append(f"{job.source}: {error.strerror or error}{where}")


def _colorize_video(
    job: Job,
    networks: Mapping[str, Colorizer],
    journal: Journal,
    batch_size: int,
    outcome: Outcome,
) -> None:
    """Colorize one video with every network, except where the output file is kept."""
    try:
        version = FileVersion.of(job.source)
        for number, (name, target) in enumerate(zip(networks, job.targets, strict=True)):
            if target in job.kept:
                continue
            dropout = journal.use_dropout(number, job)
            with journal.writing(target, job, number, version):
                line = colorize_video(job.source, target, networks[name], batch_size, dropout)
            outcome.video_lines.append(f"{job.source.name} by {name}: {line}")
    except UserError as error:
        outcome.failures.append(f"{job.source}: {error}")
    except OSError as error:
        _add_failure(job, error, outcome)
    else:
        outcome.num_written += 1


def write_sheet(jobs: Sequence[Job], networks: Sequence[str], path: Path) -> None:
    """Write the contact sheet: a grayscale column, then one column per network.

    The rows are the first 64 images whose output files all exist; without any, nothing
    is written. networks: names of the networks.
    """
    rows = list(itertools.islice(_sheet_rows(jobs), _SHEET_ROWS))
    if not rows:
        return
    titles = ["grayscale", "colorized"] if len(networks) == 1 else ["grayscale", *networks]
    per_row = 1 if len(rows) < 5 or len(networks) > 2 else 2
    sheet = titled_grid(rows, titles, per_row)
    (save_png if path.suffix.lower() == ".png" else save_jpeg)(sheet, path)


def _sheet_rows(jobs: Sequence[Job]) -> Iterator[list[np.ndarray]]:
    """Yield the rows of the contact sheet, each as a list of (H, W, 3) uint8 images."""
    for job in jobs:
        try:
            colorized = [_thumbnail(target) for target in job.targets if not job.is_video]
        except (OSError, UndecodableError):
            continue  # it was not written, or it is not an image and was kept
        if colorized:
            yield [gamut_mapped_rgb(to_grayscale(rgb_to_lab(colorized[0]))), *colorized]


def _thumbnail(path: Path) -> np.ndarray:
    image = decode_image(path.read_bytes())
    return np.asarray(ImageOps.pad(image, (_SHEET_SIDE, _SHEET_SIDE), color="white"))


def main(argv: Sequence[str] | None = None) -> int:
    """Colorize the inputs; return the exit status, 1 if some could not be colorized."""
    args = make_parser().parse_args(argv)
    names = list(name_runs(args.run))
    results = earlier_results(args.out)
    inputs = find_inputs(args.inputs, args.out, by_content=args.by_content, results=results)
    jobs = plan_jobs(inputs.files, args.out, names)
    if args.sheet:
        check_sheet(args.sheet, jobs)
    check_video(jobs)
    networks = load_networks(args)
    dropout = None if args.dropout is None else args.dropout == "on"
    journal = Journal(args.out, list(networks.values()), dropout)
    selected = select_jobs(jobs, journal, args.sheet, args.force, args.skip_existing)
    num_done = len(jobs) - len(selected)
    if selected:
        journal.create()
        if num_done:
            print(f"{num_done:,} of {len(jobs):,} inputs were done before", flush=True)
    with explain_out_of_memory("colorizing", _MEMORY_ADVICE.format(args.batch_size)):
        outcome = colorize_all(selected, networks, journal, args)
    if args.sheet:
        with journal.writing(args.sheet):
            write_sheet(jobs, names, args.sheet)
    for line in (*inputs.passed_over, *outcome.notes):
        print(line, file=sys.stderr)
    for line in outcome.failures:
        print(f"not colorized: {line}", file=sys.stderr)
    before = f", {num_done:,} were done before" if num_done else ""
    summary = f"{outcome.num_written:,} of {len(jobs):,} inputs colorized{before}"
    print("\n".join([*outcome.video_lines, f"{summary}, written to {args.out}"]))
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(run_command("colorize", main))
