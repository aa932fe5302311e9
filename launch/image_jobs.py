"""Pictures to colour: which they are, where they go, that nothing is overwritten; and reading them a few at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from shards.errors import UserError
from shards.sources.decode import UndecodableError, decode_image
from shards.sources.listing import SUFFIXES, Source, read_bytes

FILMS = ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg")
_BATCH_PIXELS = 1 << 25  # decoded pixels held at once: few large pictures make a batch


@dataclass(frozen=True)
class Job:
    """One picture or film to colour, and where it goes: one file for each network."""

    source: Path
    targets: tuple[Path, ...]

    @property
    def is_film(self) -> bool:
        """Whether it moves."""
        return is_film(self.source)


@dataclass
class Outcome:
    """What came of it: files written, lines about those that could not be read, rows for the sheet."""

    num_written: int = 0
    failures: list[str] = field(default_factory=list)
    rows: list[list[np.ndarray]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # what there is to say of films


def is_film(path: Path) -> bool:
    """By its name."""
    return path.suffix[1:].lower() in FILMS


def plan(inputs: Sequence[Path], out: Path, networks: Sequence[str]) -> list[Job]:
    """What goes where, sorted within each folder: below OUT, or below OUT/NETWORK where there are several.

    Raises `UserError` for a missing input, a folder without pictures, and two pictures that would take one name.
    """
    folders = [out] if len(networks) == 1 else [out / name for name in networks]
    jobs: dict[Path, Job] = {}
    for source, place in (found for path in inputs for found in _found(path, out)):
        job = Job(source, tuple(folder / place for folder in folders))
        earlier = jobs.setdefault(place, job)
        if _real(earlier.source) != _real(source):
            raise UserError(
                f"{earlier.source} and {source} would both become {job.targets[0]}: rename one of them"
            )
        if _real(source) in map(_real, job.targets):
            raise UserError(
                f"{source} would be overwritten by its coloured version: choose another --out"
            )
    return list(jobs.values())


def _found(path: Path, out: Path) -> list[tuple[Path, Path]]:
    """Pictures and their places below an output folder; films have to be named one by one."""
    if path.is_dir():
        below = _real(out)
        found = [
            each
            for each in sorted(path.rglob("*"))
            if each.suffix[1:].lower() in SUFFIXES and not each.is_dir()
        ]
        found = [each for each in found if below not in _real(each).parents or below == _real(path)]
        if not found:
            raise UserError(f"no pictures in {path}")
        return [(each, each.relative_to(path).with_suffix(".png")) for each in found]
    if not path.exists():
        raise UserError(f"no such picture or folder: {path}")
    return [(path, Path(f"{path.stem}.{'mp4' if is_film(path) else 'png'}"))]


def _real(path: Path) -> Path:
    """Where a path leads; `resolve` raises for a link to itself, which is listed as unreadable instead."""
    return Path(os.path.realpath(path))


def skip_existing(jobs: list[Job], sheet: Path | None, force: bool, skip: bool) -> list[Job]:
    """The jobs to do; raises `UserError` if that would overwrite anything and neither word says what to do."""
    if sheet is not None and sheet.suffix.lower() not in (".png", ".jpg"):
        raise UserError(f"--sheet {sheet}: give a name that ends in .png or .jpg")
    if sheet is not None and _real(sheet) in {
        _real(path) for job in jobs for path in (job.source, *job.targets)
    }:
        raise UserError(f"--sheet {sheet} is also the name of a picture: choose another")
    existing = {target for job in jobs for target in job.targets if target.exists()}
    if skip:
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
    """Decoded pictures, some at a time; those that cannot be read are noted in `outcome.failures`."""
    batch: list[tuple[Job, Image.Image]] = []
    pixels = 0
    for job in jobs:
        try:
            batch.append((job, _read(job.source, max_pixels)))
        except (UndecodableError, OSError) as error:
            outcome.failures.append(f"{job.source}: {error}")
            continue
        pixels += (
            batch[-1][1].width * batch[-1][1].height
        )  # no name of its own: it would keep the picture alive
        if len(batch) == batch_size or pixels >= _BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _read(path: Path, max_pixels: int) -> Image.Image:
    return decode_image(
        read_bytes(Source(path.name, str(path)), limit=max(1 << 26, 16 * max_pixels)), max_pixels
    )
