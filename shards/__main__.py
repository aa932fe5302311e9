"""The doors of the package: `python -m shards build|merge|verify|info|statistics` (`--help` for each)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from shards.builder.build import BuildOptions, build, build_part, check_workers
from shards.builder.merge import merge
from shards.builder.parts import Part, parse_part
from shards.builder.plan import Parameters
from shards.errors import UserError, run_command
from shards.format.manifest import DTYPES, load_manifest
from shards.inspect.info import describe, save_sheet
from shards.inspect.statistics import (
    merge_statistics,
    part_path,
    save_statistics,
    statistics,
    statistics_of_part,
)
from shards.inspect.verify import verify
from shards.sources.decode import FITS, MAX_PIXELS

BUILD_HELP = """\
SOURCE is one of
  a folder            every image below it, by file name ending
  a text file         one path a line, relative to the file's folder
  'FOLDER/*.tar'      tars of images (img2dataset, WebDataset); quote the pattern
  CIFAR-10's folder   the binary or the python layout, as downloaded; or some of its batches

Every image is packed or listed with its reason in OUT/left_out.tsv: unreadable, too small, grey (--drop-grey),
duplicate, decompression bomb.

exit status: 0 all images packed, 1 some left out, 2 a mistake (one line says which), 70 a bug, 130 Ctrl-C
The same command again goes on where it was stopped, whatever stopped it; what was unreadable is tried again.
Images are told apart by name: one that has changed under the same name is not noticed; choose a new OUT for it.

On many machines, run the same command with --part 1/8 ... --part 8/8, in any order, at the same time or not, each as
often as it takes, into one OUT that all see or into folders of their own; then `python -m shards merge`. The bytes
are those of a plain build. A part is a range of consecutive blocks (1,000 images each where there are many).

example:
  python -m shards build photos photos-256 --size 256 --splits train=.95,val=.05
"""

SPLITS_HELP = "by hash of each file, e.g. train=.9,val=.1; or `source`: its first folders, for CIFAR-10 train and test"
MIN_SIDE_HELP = "leave out images with a shorter side (default: half of --size: nothing is enlarged more than twice)"

MERGE_HELP = """\
Checks every block against its record, brings over what lies in PART_DIRs (hard links where possible, else copies),
leaves out duplicates, and writes the index tables and the manifest. If blocks are missing it lists them: exit status 2.

exit status: as of `build`

example:
  python -m shards merge photos-256
"""

VERIFY_HELP = """\
Reads every byte against manifest, records and index tables; exit status 0 if all is whole, 2 if not, with the first
broken shard, member and byte range in one line.

example:
  python -m shards verify photos-256
"""

STATISTICS_HELP = """\
Per split: pixels in bins of 10 x 10 ab units (centres at the multiples of 10 from -110 to 110, as in Zhang et al. 2016)
and mean and standard deviation of L, a and b. On many machines: --part 1/8 ... --part 8/8 count a share of the shards
each, then --merge writes what one run would, digit for digit.

example:
  python -m shards statistics photos-256 --json colours.json
"""


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one door; returns the exit status, raises `UserError`."""
    arguments = make_parser().parse_args(argv)
    status: int = arguments.door(arguments)
    return status


class _Parser(argparse.ArgumentParser):
    """Wrong arguments get one line too, not the whole usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see `{self.prog} --help`)")


def make_parser() -> argparse.ArgumentParser:
    """The words this door understands."""
    words = _Parser(
        prog="colortrain shards",
        description="Photographs to shards of CIELAB arrays.",
        epilog="example: python -m shards build photos photos-256 --size 256 --splits train=.95,val=.05",
    )
    doors = words.add_subparsers(required=True, metavar="build|merge|verify|info|statistics")
    _add_build(doors)
    _add_merge(doors)
    _add_readers(doors)
    return words


Doors = argparse._SubParsersAction


def _add(doors: Doors, name: str, what: str, epilog: str) -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    door: argparse.ArgumentParser = doors.add_parser(
        name, help=what, description=what, epilog=epilog, formatter_class=layout
    )
    return door


def _add_build(doors: Doors) -> None:
    door = _add(doors, "build", "pack photographs into shards", BUILD_HELP)
    door.set_defaults(door=_build)
    door.add_argument("source", metavar="SOURCE", help="where the images are (see below)")
    door.add_argument(
        "out", metavar="OUT", type=Path, help="a new folder, or one of the same build to go on with"
    )
    add = door.add_argument
    add(
        "--size",
        type=int,
        required=True,
        metavar="N",
        help="height and width of every sample, in pixels",
    )
    add(
        "--fit",
        choices=FITS,
        default="crop",
        help="crop the centre, squash, or pad with black (default: crop)",
    )
    add(
        "--dtype",
        choices=DTYPES,
        default="uint8",
        help="uint8 is off by .2 in L and .5 in a, b at most; float16 by 2^-5 (default: uint8)",
    )
    add("--splits", default="", metavar="NAME=SHARE,...", help=SPLITS_HELP)
    add("--drop-grey", action="store_true", help="leave out pictures without colour")
    add("--min-side", type=int, default=-1, metavar="N", help=MIN_SIDE_HELP)
    add(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        metavar="N",
        help=f"more is a bomb (default: {MAX_PIXELS:,})",
    )
    add(
        "--shard-size",
        type=int,
        default=0,
        metavar="N",
        help="images a shard (default: 1000, fewer for small sets)",
    )
    add(
        "--workers",
        type=int,
        default=available_cores(),
        metavar="N",
        help="processes (default: the cores); bytes do not depend on it",
    )
    add("--part", metavar="I/N", help="pack the I-th of N parts alone, for `merge` to finish")
    add(
        "--strict",
        action="store_true",
        help="fail, with exit status 2 and no manifest, if an image would be left out",
    )


def _build(arguments: argparse.Namespace) -> int:
    names = ("size", "fit", "dtype", "splits", "drop_grey", "min_side", "max_pixels", "shard_size")
    parameters = Parameters(**{name: getattr(arguments, name) for name in names})
    options = BuildOptions(
        out=arguments.out, workers=check_workers(arguments.workers), strict=arguments.strict
    )
    if arguments.part is not None:
        return (
            1
            if build_part(
                arguments.source, parameters, parse_part(arguments.part), options
            ).left_out
            else 0
        )
    outcome = build(arguments.source, parameters, options)
    return 1 if outcome.manifest.left_out else 0


def _add_merge(doors: Doors) -> None:
    door = _add(
        doors, "merge", "make a shard set of the parts that `build --part` packed", MERGE_HELP
    )
    door.set_defaults(door=_merge)
    door.add_argument("out", metavar="OUT", type=Path, help="the parts' OUT, or a new folder")
    door.add_argument(
        "parts",
        metavar="PART_DIR",
        type=Path,
        nargs="*",
        help="other folders with parts of this build",
    )
    _add_workers(door)
    door.add_argument(
        "--strict", action="store_true", help="fail if an image was left out, duplicates too"
    )


def _merge(arguments: argparse.Namespace) -> int:
    options = BuildOptions(
        out=arguments.out, workers=check_workers(arguments.workers), strict=arguments.strict
    )
    return 1 if merge(arguments.parts, options).manifest.left_out else 0


def _add_readers(doors: Doors) -> None:
    door = _add(
        doors, "verify", "read a shard set again and say where the first damage is", VERIFY_HELP
    )
    door.set_defaults(door=_verify)
    _add_out(door)
    _add_workers(door)
    door = _add(
        doors,
        "info",
        "print what a shard set holds",
        "example:\n  python -m shards info photos-256 --sheet sheet.png",
    )
    door.set_defaults(door=_info)
    _add_out(door)
    door.add_argument(
        "--sheet", type=Path, metavar="FILE", help="also write the first samples as one PNG"
    )
    door.add_argument(
        "--count",
        type=int,
        default=64,
        metavar="N",
        help="how many samples on the sheet (default: 64)",
    )
    door = _add(doors, "statistics", "count the colours of a shard set", STATISTICS_HELP)
    door.set_defaults(door=_statistics)
    _add_out(door)
    _add_workers(door)
    door.add_argument(
        "--json", type=Path, metavar="FILE", help="where to write (default: OUT/statistics.json)"
    )
    one = door.add_mutually_exclusive_group()
    one.add_argument(
        "--part", metavar="I/N", help="count a share, into OUT/statistics-I-of-N.json (or --json)"
    )
    one.add_argument(
        "--merge",
        type=Path,
        nargs="*",
        metavar="FILE",
        help="merge the parts' files (default: OUT's)",
    )


def _add_out(door: argparse.ArgumentParser) -> None:
    door.add_argument(
        "out", metavar="OUT", type=Path, help="a folder that `python -m shards build` wrote"
    )


def _add_workers(door: argparse.ArgumentParser) -> None:
    door.add_argument(
        "--workers",
        type=int,
        default=available_cores(),
        metavar="N",
        help="processes (default: the cores)",
    )


def _verify(arguments: argparse.Namespace) -> int:
    manifest = verify(arguments.out, check_workers(arguments.workers))
    samples = sum(manifest.samples(split) for split in manifest.splits)
    print(f"{arguments.out}: all {samples:,} samples are whole, dataset {manifest.dataset_id}")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    manifest = load_manifest(arguments.out)
    print(describe(arguments.out, manifest))
    if arguments.sheet:
        save_sheet(arguments.out, manifest, arguments.sheet, arguments.count)
    return 0


def _statistics(arguments: argparse.Namespace) -> int:
    workers = check_workers(arguments.workers)
    if arguments.part is not None:
        return _statistics_of_part(
            arguments.out, parse_part(arguments.part), workers, arguments.json
        )
    path = arguments.json or arguments.out / "statistics.json"
    merging = arguments.merge is not None
    document = (
        merge_statistics(arguments.out, arguments.merge)
        if merging
        else statistics(arguments.out, workers)
    )
    save_statistics(document, path)
    for split, each in document["splits"].items():
        figures = ", ".join(
            f"{name} {each['mean'][name]:.2f} +- {each['std'][name]:.2f}" for name in "Lab"
        )
        print(f"{split}: {each['samples']:,} samples, {figures}")
    print(f"written to {path}")
    return 0


def _statistics_of_part(out: Path, part: Part, workers: int, path: Path | None) -> int:
    document = statistics_of_part(out, part, workers)
    path = path or part_path(out, part)
    save_statistics(document, path)
    print(
        f"{out}: part {part} written to {path}; when all parts are done: python -m shards statistics {out} --merge"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command("shards", main))
