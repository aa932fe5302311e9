"""Colour photographs with a trained run, at their own resolution: their own lightness, joined with generated colours.

python -m launch.colorize --run runs/first --out coloured holiday/ grandmother.jpg
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn

from colortrain.checkpoint import load_generator
from colortrain.evaluation import generate
from colortrain.pictures import grey, recolour, save_png, titled_grid
from colortrain.recipe import Recipe
from launch.doors import DoorParser, at_least_one, step_or_best
from shards.decode import MAX_PIXELS, Undecodable, decode_image, fit_image
from shards.errors import UserError, run_door
from shards.lab import lab_to_rgb, rgb_to_lab
from shards.progress import ProgressLine
from shards.sources import SUFFIXES, Source, read_bytes

_EXAMPLE = """\
A folder's pictures keep their places below OUT; everything becomes PNG. Transparent parts become white.
example: a folder and a file, and a sheet to look at
  python -m launch.colorize --run runs/first --out coloured --sheet sheet.png holiday/ grandmother.jpg
"""
_BATCH_PIXELS = 1 << 25  # decoded pixels held at once: few large pictures make a batch
_SHEET_ROWS = 64


@dataclass(frozen=True)
class Job:
    """One picture to colour, and where it goes."""

    source: Path
    target: Path


@dataclass
class Outcome:
    """What came of it: pictures written, lines about those that could not be read, rows for the sheet."""

    num_written: int = 0
    failures: list[str] = field(default_factory=list)
    rows: list[list[np.ndarray]] = field(default_factory=list)


def parser() -> argparse.ArgumentParser:
    """The words this door understands."""
    words = DoorParser("launch.colorize", "Colour photographs with a trained run, at their own resolution.", _EXAMPLE)
    words.add_argument(
        "inputs", nargs="+", type=Path, metavar="INPUT", help="picture, or folder of pictures (recursive)"
    )
    words.add_argument("--run", required=True, type=Path, help="folder that launch.train wrote")
    words.add_argument("--out", required=True, type=Path, help="folder for the coloured pictures")
    words.add_argument("--sheet", type=Path, metavar="FILE.png", help="also draw grey | coloured side by side")
    existing = words.add_mutually_exclusive_group()
    existing.add_argument("--force", action="store_true", help="overwrite pictures that are there already")
    existing.add_argument("--skip-existing", action="store_true", help="leave out pictures that are there already")
    words.add_argument(
        "--checkpoint", type=step_or_best, metavar="STEP",
        help="use this step's checkpoint, or the `best` (of a run with keep_best), not the newest",
    )  # fmt: skip
    words.add_argument("--batch-size", type=at_least_one, default=8, metavar="N", help="pictures at once; default 8")
    words.add_argument("--device", help="cpu, cuda, cuda:1, ...; default a GPU if there is one")
    words.add_argument(
        "--dropout", choices=("on", "off"), help="whether dropout stays on; default what the recipe says"
    )
    words.add_argument(
        "--ema", action=argparse.BooleanOptionalAction, default=True, help="averaged weights where there are any"
    )
    words.add_argument(
        "--max-pixels", type=at_least_one, default=MAX_PIXELS, metavar="N",
        help=f"refuse larger pictures as decompression bombs; default {MAX_PIXELS}",
    )  # fmt: skip
    return words


def plan(inputs: Sequence[Path], out: Path) -> list[Job]:
    """What goes where, sorted within each folder.

    Raises `UserError` for a missing input, a folder without pictures, and two pictures that would take one name.
    """
    jobs: dict[Path, Job] = {}
    for job in (job for path in inputs for job in _jobs_of(path, out)):
        earlier = jobs.setdefault(job.target, job)
        if earlier.source.resolve() != job.source.resolve():
            raise UserError(f"{earlier.source} and {job.source} would both become {job.target}: rename one of them")
        if job.target.resolve() == job.source.resolve():
            raise UserError(f"{job.source} would be overwritten by its coloured version: choose another --out")
    return list(jobs.values())


def _jobs_of(path: Path, out: Path) -> list[Job]:
    if path.is_dir():
        below = out.resolve()
        found = [each for each in sorted(path.rglob("*")) if each.suffix[1:].lower() in SUFFIXES and each.is_file()]
        found = [each for each in found if below not in each.resolve().parents or below == path.resolve()]
        if not found:
            raise UserError(f"no pictures in {path}")
        return [Job(each, out / each.relative_to(path).with_suffix(".png")) for each in found]
    if not path.exists():
        raise UserError(f"no such picture or folder: {path}")
    return [Job(path, out / f"{path.stem}.png")]


def without_existing(jobs: list[Job], arguments: argparse.Namespace) -> list[Job]:
    """The jobs to do; raises `UserError` if that would overwrite anything and neither word says what to do."""
    sheet = arguments.sheet
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise UserError(f"--sheet {sheet}: give a name that ends in .png")
    if sheet is not None and sheet.resolve() in {p.resolve() for job in jobs for p in (job.source, job.target)}:
        raise UserError(f"--sheet {sheet} is also the name of a picture: choose another")
    existing = {job.target for job in jobs if job.target.exists()}
    if arguments.skip_existing:
        return [job for job in jobs if job.target not in existing]
    taken = sorted(existing | ({sheet} if sheet is not None and sheet.exists() else set()))
    if taken and not arguments.force:
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise UserError(f"{taken[0]} exists{more}: choose another --out, or give --force or --skip-existing")
    return jobs


def choose_device(word: str | None) -> torch.device:
    """The device asked for, or a GPU if there is one; raises `UserError` if this machine has no such device."""
    try:
        device = torch.device(word or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {word}: {str(error).splitlines()[0]}") from None
    return device


def read_batches(
    jobs: Sequence[Job], batch_size: int, max_pixels: int, outcome: Outcome
) -> Iterator[list[tuple[Job, Image.Image]]]:
    """Decoded pictures, some at a time; those that cannot be read are noted in `outcome.failures`."""
    batch: list[tuple[Job, Image.Image]] = []
    pixels = 0
    for job in jobs:
        try:
            batch.append((job, _read(job.source, max_pixels)))
        except (Undecodable, OSError) as error:
            outcome.failures.append(f"{job.source}: {error}")
            continue
        pixels += batch[-1][1].width * batch[-1][1].height  # no name of its own: it would keep the picture alive
        if len(batch) == batch_size or pixels >= _BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _read(path: Path, max_pixels: int) -> Image.Image:
    return decode_image(read_bytes(Source(path.name, str(path)), limit=max(1 << 26, 16 * max_pixels)), max_pixels)


def generate_ab(
    generator: nn.Module, recipe: Recipe, images: Sequence[Image.Image], device: torch.device, dropout: bool, seed: int
) -> np.ndarray:
    """The colours the network gives to pictures, squashed to the size it was trained at: (B, 2, size, size) CIELAB."""
    squares = [rgb_to_lab(np.asarray(fit_image(image, recipe.size, "squash"))) for image in images]
    lab = torch.from_numpy(np.stack(squares)).to(device)
    return generate(generator, recipe.codec, lab, dropout=dropout, seed=seed)[:, 1:].cpu().numpy()


def colour_all(jobs: Sequence[Job], generator: nn.Module, recipe: Recipe, arguments: argparse.Namespace) -> Outcome:
    """Colour and write every picture that can be read."""
    device = choose_device(arguments.device)
    generator.to(device)
    dropout = recipe.test_dropout if arguments.dropout is None else arguments.dropout == "on"
    outcome = Outcome()
    with ProgressLine("colouring", len(jobs), "images") as progress:
        for batch in read_batches(jobs, arguments.batch_size, arguments.max_pixels, outcome):
            images = [image for _, image in batch]
            colours = generate_ab(generator, recipe, images, device, dropout, seed=outcome.num_written)
            del images
            for ab in colours:
                job, rgb = _take_first(batch)
                _write(job, rgb, ab, outcome, recipe.size if arguments.sheet else 0)
                progress.advance_to(outcome.num_written + len(outcome.failures))
    return outcome


def _take_first(batch: list[tuple[Job, Image.Image]]) -> tuple[Job, np.ndarray]:
    """Take the first picture out of a batch, as an array: Pillow's own copy (4 bytes a pixel) can go."""
    job, image = batch.pop(0)
    return job, np.array(image)


def _write(job: Job, rgb: np.ndarray, ab: np.ndarray, outcome: Outcome, thumbnail: int) -> None:
    recolour(rgb, ab)
    save_png(rgb, job.target)
    outcome.num_written += 1
    if thumbnail and len(outcome.rows) < _SHEET_ROWS:
        small = np.asarray(ImageOps.pad(Image.fromarray(rgb), (thumbnail, thumbnail), color="white"))
        L = grey(rgb_to_lab(small))
        outcome.rows.append([lab_to_rgb(L), small])


def main(argv: Sequence[str] | None = None) -> int:
    """Colour; returns the exit status: 1 if some pictures could not be read."""
    arguments = parser().parse_args(argv)
    jobs = without_existing(plan(arguments.inputs, arguments.out), arguments)
    generator, recipe, _ = load_generator(arguments.run, step=arguments.checkpoint, ema=arguments.ema)
    outcome = colour_all(jobs, generator, recipe, arguments)
    if arguments.sheet and outcome.rows:
        across = 1 if len(outcome.rows) < 5 else 2
        save_png(titled_grid(outcome.rows, ["grey", "coloured"], across), arguments.sheet)
    for line in outcome.failures:
        print(f"not coloured: {line}", file=sys.stderr)
    print(f"{outcome.num_written:,} of {len(jobs):,} pictures coloured into {arguments.out}")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(run_door("launch.colorize", main))
