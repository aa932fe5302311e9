"""Measure how many images per second are built into shards, compared with other code.

Four methods are measured: the build with one worker process, the build with two,
decoding and resizing alone, and a plain loop over the functions of scikit-image.
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

from launch.benchmark.loading.seek import run_in_new_process
from launch.benchmark.report import Report, settings_of
from launch.benchmark.scratch_folder import scratch_folder
from launch.benchmark.timing import CountStream, Measurements, Method, measure_in_turns
from launch.cli import CommandParser, at_least_one
from shards.__main__ import available_cores
from shards.builder.build import BuildOptions, build
from shards.builder.plan import Parameters
from shards.errors import UserError
from shards.sources.decode import UndecodableError, decode_reduced, fit_image, open_image
from shards.sources.listing import FILE, open_sources

_EXAMPLE = """\
Use photographs at their original size: the larger they are, the more of the time is spent on
decoding.

example:
  colortrain benchmark build --source photos --size 256 --json build.json
"""
ONE_WORKER, TWO_WORKERS = "colortrain build, 1 worker", "colortrain build, 2 workers"
DECODE, LOOP = "decode and resize alone", "plain scikit-image loop"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_LOOP_STRIDE = 4  # the loop is slow and measured on every fourth image
_MIN_IMAGES = 8


def build_shards(images: Sequence[str], size: int, workers: int, folder: Path) -> CountStream:
    """Build a shard set from image files, then yield the number of images.

    size: side of the samples in pixels; workers: number of processes; folder: where the
    set is written, which must not contain an earlier build.
    """
    build(
        str(write_list(images, folder)),
        build_parameters(size),
        BuildOptions(out=folder / "out", workers=workers, quiet=True),
    )
    yield len(images)


def build_parameters(size: int) -> Parameters:
    """Return parameters of a build at `size` pixels that accepts images of any size."""
    return Parameters(size=size, min_side=1)


def write_list(images: Sequence[str], folder: Path) -> Path:
    """Write a file in `folder` with one path of an image per line; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "images.txt"
    path.write_bytes(b"".join(os.fsencode(image) + b"\n" for image in images))
    return path


def decode_images(images: Sequence[str], size: int) -> CountStream:
    """Decode and resize image files as a build does; then yield the number of files."""
    for image in images:
        centred_square(Path(image).read_bytes(), size)
    yield len(images)


def centred_square(data: bytes, size: int) -> np.ndarray:
    """Decode the bytes of an image file; return its centred square, resized to `size`.

    Returns (size, size, 3) uint8 sRGB.
    """
    return np.asarray(fit_image(decode_reduced(open_image(data), size), size))


def scikit_image_loop(images: Sequence[str], size: int, folder: Path) -> CountStream:
    """Convert image files to Lab with scikit-image, then yield the number of images.

    Each image is written to `folder` as a float32 array, (size, size, 3) in CIELAB
    units.
    """
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


def compared_methods(size: int, folder: Path) -> dict[str, Callable[[Sequence[str]], CountStream]]:
    """Return the compared methods by name.

    Each method takes a list of image files, processes all of them, and yields their
    number once. size: side of the results in pixels; folder: where the methods write
    files.
    """
    return {
        ONE_WORKER: lambda images: build_shards(images, size, 1, folder),
        DECODE: lambda images: decode_images(images, size),
        TWO_WORKERS: lambda images: build_shards(images, size, 2, folder),
        LOOP: lambda images: scikit_image_loop(images, size, folder),
    }


def measure_rates(
    images: Sequence[str], size: int, rounds: int, folder: Path, cpu_time: bool
) -> dict[str, Measurements]:
    """Return the images per second of each method by name, with one value per round.

    With `cpu_time`, the CPU time of this process is measured instead of the wall time,
    and the build with two workers is left out.
    """

    def clean() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    methods = []
    clock = time.process_time if cpu_time else time.perf_counter
    for name, method in compared_methods(size, folder).items():
        if cpu_time and name == TWO_WORKERS:
            continue  # it runs in other processes
        clean()
        # not measured: imports, and the start of the process that forks the workers
        next(method(images[:_MIN_IMAGES]))
        subset = images[::_LOOP_STRIDE] if name == LOOP else images
        start = partial(method, subset)
        methods.append(Method(name, start, settle=False, before=clean, clock=clock, max_samples=1))
    return measure_in_turns("building", methods, seconds=float("inf"), rounds=rounds)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit processes that are started inside the `with` block to one thread each."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def select_images(source: str, max_images: int, out: Path) -> list[str]:
    """Return the paths of at most `max_images` images that all methods can read.

    source: a folder or a text list of image files, from which evenly spaced files are
    taken; out: a folder whose files are left out. Raises UserError if fewer than 8
    files can be read, or if `source` contains tars or the files of CIFAR-10.
    """
    listed = open_sources(source, out).sources
    if any(each.kind != FILE for each in listed):
        raise UserError(
            f"{source} contains tar or CIFAR-10 entries: this benchmark requires a folder, or a "
            "text list, of image files"
        )
    count = min(max_images, len(listed))
    indices = np.unique(np.linspace(0, len(listed) - 1, count).round().astype(int))
    paths = [str(Path(listed[index].path).resolve()) for index in indices]
    readable = [path for path in paths if is_readable(Path(path))]
    if len(readable) < _MIN_IMAGES:
        raise UserError(
            f"{source} holds {len(readable)} readable RGB or grayscale images: "
            f"give at least {_MIN_IMAGES}"
        )
    return readable


def is_readable(path: Path) -> bool:
    """Return whether an image file can be decoded and is RGB or grayscale."""
    try:
        opened = open_image(path.read_bytes())
        opened.load()
    except (UndecodableError, OSError, SyntaxError, ValueError):
        return False
    return opened.mode in ("RGB", "L")


def add_goals(report: Report, rates: dict[str, Measurements]) -> None:
    """Add the goals of this benchmark to the report, from the rates of the methods."""
    report.add_goal(f"build over {LOOP}, per core", rates[ONE_WORKER].over(rates[LOOP]), 4.0)
    report.add_goal(
        "time of build over decode and resize alone",
        rates[DECODE].over(rates[ONE_WORKER]),
        1.35,
        at_most=True,
    )
    if TWO_WORKERS not in rates:
        report.notes.append(
            "measured in CPU time, in which two workers cannot be faster than one: "
            "no goal for two workers"
        )
    elif available_cores() >= 2:
        report.add_goal("2 workers over 1", rates[TWO_WORKERS].over(rates[ONE_WORKER]), 1.8)
    else:
        report.notes.append(
            "measured on one core, on which two workers cannot be faster than one: "
            "no goal for two workers"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, print and save its report, and return the exit status."""
    args = make_parser().parse_args(argv)
    report = Report("build", settings_of(args))
    with scratch_folder(args.scratch) as scratch:
        images = select_images(args.source, args.images, scratch)
        with one_thread():
            work = scratch / "work"
            rates = run_in_new_process(
                measure_rates, images, args.size, args.rounds, work, args.cpu_time
            )
    report.notes.append(
        f"{len(images):,} images of {args.source}, every {_LOOP_STRIDE}th for the loop"
    )
    kind = "CPU" if args.cpu_time else "wall"
    for name, measurements in rates.items():
        section = f"To {args.size} px, one thread per process, {kind} time"
        report.add_row(section, name, measurements, "images/s")
    add_goals(report, rates)
    report.publish(args.json)
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this benchmark's options."""
    parser = CommandParser("launch.benchmark build", __doc__ or "", _EXAMPLE)
    add = parser.add_argument
    add(
        "--source",
        required=True,
        metavar="PHOTOS",
        help="a folder or a text list of image files",
    )
    add(
        "--size",
        type=at_least_one,
        default=256,
        metavar="N",
        help="size of the samples in pixels (default: 256)",
    )
    add(
        "--images",
        type=at_least_one,
        default=400,
        metavar="N",
        help="largest number of images to measure on (default: 400)",
    )
    add("--rounds", type=at_least_one, default=5, metavar="N", help="number of rounds (default: 5)")
    add(
        "--cpu-time",
        action="store_true",
        help="measure CPU time instead of wall time, on a busy machine",
    )
    add(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="folder for the builds, which are deleted afterwards (default: TMPDIR)",
    )
    add("--json", type=Path, metavar="FILE", help="write the report as JSON to this file")
    return parser
