"""Find the inputs of `colortrain colorize`, name its outputs, and decode images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from shards.errors import UserError
from shards.sources.decode import UndecodableError, decode_image
from shards.sources.listing import SUFFIXES, ImageSource, read_bytes

VIDEO_SUFFIXES = ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg")
_BATCH_PIXELS = 1 << 25  # most decoded pixels per batch: batches of large images are smaller


@dataclass(frozen=True)
class Job:
    """An image or video to colorize, and the output files, one for each network."""

    source: Path
    targets: tuple[Path, ...]

    @property
    def is_video(self) -> bool:
        """Whether the source is a video, according to its file name's extension."""
        return is_video(self.source)


@dataclass
class Outcome:
    """The results of all jobs so far.

    num_written: number of images and videos that were colorized by every network;
    failures: one line per image or video that could not be read; sheet_rows: for each
    row of the contact sheet a list of images, (H, W, 3) uint8; video_lines: one line of
    text per colorized video and network.
    """

    num_written: int = 0
    failures: list[str] = field(default_factory=list)
    sheet_rows: list[list[np.ndarray]] = field(default_factory=list)
    video_lines: list[str] = field(default_factory=list)


def is_video(path: Path) -> bool:
    """Return whether a file is a video, according to the extension of its name."""
    return path.suffix[1:].lower() in VIDEO_SUFFIXES


def plan_jobs(inputs: Sequence[Path], out: Path, networks: Sequence[str]) -> list[Job]:
    """Return one job for each image and video of the inputs, sorted within each folder.

    The output files are in `out`, or in `out`/NETWORK if there are several networks.
    Raises UserError for a missing input, a folder without images, two inputs with the
    same output file, and an input that would be overwritten.
    """
    folders = [out] if len(networks) == 1 else [out / name for name in networks]
    jobs: dict[Path, Job] = {}
    for source, relative in (pair for path in inputs for pair in _find_images(path, out)):
        job = Job(source, tuple(folder / relative for folder in folders))
        earlier = jobs.setdefault(relative, job)
        if _real(earlier.source) != _real(source):
            raise UserError(
                f"{earlier.source} and {source} would both be written to {job.targets[0]}: "
                "rename one of them"
            )
        if _real(source) in map(_real, job.targets):
            raise UserError(
                f"{source} would be overwritten by its colorized version: choose another --out"
            )
    return list(jobs.values())


def _find_images(path: Path, out: Path) -> list[tuple[Path, Path]]:
    """Return (source, output file) for each image or video of one input.

    An input is a file or a folder. A folder is searched recursively for images, but not
    for videos, and not inside `out`. Output files are relative to `out`. Raises
    UserError if the input does not exist or is a folder without images.
    """
    if path.is_dir():
        real_out = _real(out)
        images = [
            each
            for each in sorted(path.rglob("*"))
            if each.suffix[1:].lower() in SUFFIXES and not each.is_dir()
        ]
        if real_out != _real(path):
            images = [each for each in images if real_out not in _real(each).parents]
        if not images:
            raise UserError(f"no images in {path}: give a folder that contains some")
        return [(each, each.relative_to(path).with_suffix(".png")) for each in images]
    if not path.exists():
        raise UserError(f"no such file or folder: {path}")
    return [(path, Path(f"{path.stem}.{'mp4' if is_video(path) else 'png'}"))]


def _real(path: Path) -> Path:
    """Return a path with symbolic links resolved.

    Unlike `Path.resolve` it does not raise for a link to itself: such a link is later
    reported as unreadable.
    """
    return Path(os.path.realpath(path))


def select_jobs(jobs: list[Job], sheet: Path | None, force: bool, skip_existing: bool) -> list[Job]:
    """Return the jobs to run, after checking that no file is overwritten by mistake.

    All jobs are returned, or, with `skip_existing`, those that have at least one
    missing output file. Raises UserError if a file exists and neither `force` nor
    `skip_existing` is set, or if the file name of the contact sheet, `sheet`, is
    invalid.
    """
    if sheet is not None and sheet.suffix.lower() not in (".png", ".jpg"):
        raise UserError(f"--sheet {sheet}: give a name that ends in .png or .jpg")
    if sheet is not None and _real(sheet) in {
        _real(path) for job in jobs for path in (job.source, *job.targets)
    }:
        raise UserError(f"--sheet {sheet} is also the name of an image: choose another name")
    existing = {target for job in jobs for target in job.targets if target.exists()}
    if skip_existing:
        return [job for job in jobs if not existing.issuperset(job.targets)]
    taken = sorted(existing | ({sheet} if sheet is not None and sheet.exists() else set()))
    if taken and not force:
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise UserError(
            f"{taken[0]} exists{more}: choose another --out, or give --force or --skip-existing"
        )
    return jobs


def read_batches(
    jobs: Sequence[Job], batch_size: int, max_pixels: int, outcome: Outcome
) -> Iterator[list[tuple[Job, Image.Image]]]:
    """Yield batches of decoded images, each with its job.

    A batch has at most `batch_size` images, and fewer if they are large. Images with
    more than `max_pixels` and unreadable ones are added to `outcome.failures` instead.
    """
    batch: list[tuple[Job, Image.Image]] = []
    pixels = 0
    for job in jobs:
        try:
            batch.append((job, _read(job.source, max_pixels)))
        except (UndecodableError, OSError) as error:
            outcome.failures.append(f"{job.source}: {error}")
            continue
        # no local variable for the image, because it would keep the image in memory
        pixels += batch[-1][1].width * batch[-1][1].height
        if len(batch) == batch_size or pixels >= _BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _read(path: Path, max_pixels: int) -> Image.Image:
    limit = max(1 << 26, 16 * max_pixels)  # bytes
    return decode_image(read_bytes(ImageSource(path.name, str(path)), limit=limit), max_pixels)
