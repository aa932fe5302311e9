"""How fast photographs are packed, beside decoding and scaling alone, and beside a plain scikit-image loop.

Everything runs with one thread a process. The loop: io.imread, the centred square, transform.resize with anti_aliasing,
color.rgb2lab, np.save. It gets a quarter of the images, evenly spaced: it is slow.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from skimage import color, io, transform

from launch.benchmark.loading.seek import alone
from launch.benchmark.report import Report
from launch.benchmark.scratch_folder import scratch_folder
from launch.benchmark.timing import Contestant, Figures, Stream, in_turns
from launch.cli import CommandParser, at_least_one
from shards.__main__ import available_cores
from shards.builder.build import BuildOptions, build
from shards.builder.plan import Parameters
from shards.errors import UserError
from shards.sources.decode import UndecodableError, fit_image, open_image, reduce_jpeg, to_rgb
from shards.sources.listing import FILE, open_sources

_EXAMPLE = """\
Give photographs as you have them: the larger, the more decoding weighs.

example:
  python -m launch.benchmark build --source photos --size 256 --json build.json
"""
ONE, TWO = "colortrain build, 1 worker", "colortrain build, 2 workers"
DECODE, LOOP = "decode and resize alone", "plain scikit-image loop"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_SHARE = 4  # the loop gets every fourth image
_FEW = 8


def packed(images: Sequence[str], size: int, workers: int, folder: Path) -> Stream:
    """The build of a list of images into a new folder, until its manifest is written."""
    build(
        str(write_list(images, folder)),
        parameters(size),
        BuildOptions(out=folder / "out", workers=workers, quiet=True),
    )
    yield len(images)


def parameters(size: int) -> Parameters:
    """A build that leaves no image out for its size."""
    return Parameters(size=size, min_side=1)


def write_list(images: Sequence[str], folder: Path) -> Path:
    """A text list of `images` in `folder`, as `python -m shards build` reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "images.txt"
    path.write_text("\n".join(images) + "\n")
    return path


def decoded(images: Sequence[str], size: int) -> Stream:
    """What the build does to each image before Lab, and nothing more."""
    for image in images:
        square(Path(image).read_bytes(), size)
    yield len(images)


def square(data: bytes, size: int) -> np.ndarray:
    """The centred square of an encoded image: (size, size, 3) uint8 sRGB."""
    opened = open_image(data)
    reduce_jpeg(opened, size)
    return np.asarray(fit_image(to_rgb(opened), size))


def plain_loop(images: Sequence[str], size: int, folder: Path) -> Stream:
    """What one would write with scikit-image on a first day."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        rgb = io.imread(image)
        rgb = color.gray2rgb(rgb) if rgb.ndim == 2 else rgb[..., :3]
        side = min(rgb.shape[:2])
        top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
        scaled = transform.resize(
            rgb[top : top + side, left : left + side], (size, size), anti_aliasing=True
        )
        np.save(folder / f"{number:09d}.npy", color.rgb2lab(scaled).astype(np.float32))
    yield len(images)


def everyone(size: int, folder: Path) -> dict[str, Callable[[Sequence[str]], Stream]]:
    """What each does to a list of images."""
    return {
        ONE: lambda images: packed(images, size, 1, folder),
        DECODE: lambda images: decoded(images, size),
        TWO: lambda images: packed(images, size, 2, folder),
        LOOP: lambda images: plain_loop(images, size, folder),
    }


def rates(
    images: Sequence[str], size: int, rounds: int, folder: Path, cpu_time: bool
) -> dict[str, Figures]:
    """Images a second of everyone, in turns; of CPU time, only those that have a single process."""

    def clean() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    contestants = []
    clock = time.process_time if cpu_time else time.perf_counter
    for name, work in everyone(size, folder).items():
        if cpu_time and name == TWO:
            continue
        clean()
        next(
            work(images[:_FEW])
        )  # outside the clock: imports, and the process that forks the workers
        share = images[::_SHARE] if name == LOOP else images
        contestants.append(
            Contestant(name, partial(work, share), settle=False, before=clean, clock=clock, most=1)
        )
    return in_turns("packing", contestants, seconds=float("inf"), rounds=rounds)


@contextmanager
def one_thread() -> Iterator[None]:
    """Processes started inside compute with one thread."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def chosen(source: str, most: int, out: Path) -> list[str]:
    """The paths of `most` images at most, evenly spaced, that everybody reads; raises `UserError` if there are few."""
    listed = open_sources(source, out).sources
    if any(each.kind != FILE for each in listed):
        raise UserError(f"{source}: give a folder or a text list of image files")
    places = np.unique(np.linspace(0, len(listed) - 1, min(most, len(listed))).round().astype(int))
    found = [
        path
        for path in (str(Path(listed[place].path).resolve()) for place in places)
        if readable(Path(path))
    ]
    if len(found) < _FEW:
        raise UserError(
            f"{source} holds {len(found)} readable RGB or grey images: give at least {_FEW}"
        )
    return found


def readable(path: Path) -> bool:
    """Whether an image decodes, and is one that scikit-image reads as RGB or grey."""
    try:
        opened = open_image(path.read_bytes())
        opened.load()
    except (UndecodableError, OSError, SyntaxError, ValueError):
        return False
    return opened.mode in ("RGB", "L")


def judge(report: Report, found: dict[str, Figures]) -> None:
    """Set the ratios beside their goals."""
    report.judge(f"build over {LOOP}, a core", found[ONE].over(found[LOOP]), 4.0)
    report.judge(
        "time of build over decode and resize alone",
        found[DECODE].over(found[ONE]),
        1.35,
        at_most=True,
    )
    if TWO not in found:
        report.notes.append(
            "of CPU time, in which two workers cannot be faster than one: that goal is not judged"
        )
    elif available_cores() >= 2:
        report.judge("2 workers over 1", found[TWO].over(found[ONE]), 1.8)
    else:
        report.notes.append(
            "one core: two workers cannot be faster than one, so that goal is not judged"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and say."""
    asked = parser().parse_args(argv)
    settings = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(asked).items()
    }
    report = Report("build", settings)
    with scratch_folder(asked.scratch) as scratch:
        images = chosen(asked.source, asked.images, scratch)
        with one_thread():
            found = alone(rates, images, asked.size, asked.rounds, scratch / "work", asked.cpu_time)
    report.notes.append(f"{len(images):,} images of {asked.source}, every {_SHARE}th for the loop")
    for name, figures in found.items():
        report.add(
            f"To {asked.size} px, one thread a process, {'CPU' if asked.cpu_time else 'wall'} time",
            name,
            figures,
            "images/s",
        )
    judge(report, found)
    report.publish(asked.json)
    return 0


def parser() -> argparse.ArgumentParser:
    """The words this benchmark understands."""
    words = CommandParser("launch.benchmark build", __doc__ or "", _EXAMPLE)
    add = words.add_argument
    add("--source", required=True, metavar="PHOTOS", help="a folder or a text list of image files")
    add(
        "--size",
        type=at_least_one,
        default=256,
        metavar="N",
        help="pixels to pack at (default: 256)",
    )
    add(
        "--images",
        type=at_least_one,
        default=400,
        metavar="N",
        help="measure on N of them at most (default: 400)",
    )
    add("--rounds", type=at_least_one, default=5, metavar="N", help="how many turns (default: 5)")
    add(
        "--cpu-time",
        action="store_true",
        help="count CPU seconds, for a machine that others use as well",
    )
    add(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="where to build, and throw away (default: TMPDIR)",
    )
    add("--json", type=Path, metavar="FILE", help="also write everything there")
    return words
