"""The command line `colortrain shards`: build, merge, verify, info and statistics.

`colortrain shards COMMAND --help` describes one of the commands.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from shards.builder.build import BuildOptions, build, build_part, check_workers
from shards.builder.merge import merge
from shards.builder.parts import Part, parse_part
from shards.builder.plan import Parameters
from shards.builder.splits import DEFAULT_SPARE
from shards.errors import UserError, run_command
from shards.format.manifest import DTYPES, load_manifest
from shards.inspect.info import describe, save_sheet
from shards.inspect.statistics import (
    compute_statistics,
    merge_statistics,
    part_path,
    save_statistics,
    statistics_of_part,
)
from shards.inspect.verify import verify
from shards.sources.decode import FITS, MAX_PIXELS

SOURCE_HELP = """\
SOURCE is one of
  a folder            all images in it and its subfolders, by file suffix; without images, its
                      parquet files with an image column (datasets of Hugging Face)
  a text file         one path per line, relative to the folder of the file
  'FOLDER/*.tar'      tars of images (img2dataset, WebDataset), or parquet files; quote the pattern
  a CIFAR-10 or       in the binary or Python layout, as downloaded or with some batches only
    CIFAR-100 folder
  MIRFLICKR-25k       the folder of Kaggle's arrays in CIELAB: l/gray_scale.npy, ab/ab/ab1.npy, ...

"""

SPLITS_HELP = """\
Splits: --splits VALUE is one of
  train=0.9,val=0.1          fractions, by a hash of each file's content
  train=8000,val=2000        numbers of images; `train=rest` is all that the others leave
  source                     the top-level folders of SOURCE (train and test for CIFAR-10)
  LIST                       a file with `path<TAB>split` on each line
  train=LIST,val=LIST        a file for each split with one path on each line, perhaps
                             followed by a blank or a tab and a class number
  train=LIST:FOLDER,...      the same, with paths relative to FOLDER in SOURCE
A LIST is a path with a `.` or a `/`. Its paths are relative to SOURCE; SOURCE, `./` or `/` at
their start is ignored. Images that are in no list are not packed, and are counted.

With `source` and with lists, in this order:
  --rename OLD=NEW,...       renames splits; two splits with one new name are joined
  --carve NEW=OLD:AMOUNT,... moves a number, or a fraction of OLD's images in SOURCE, to a new
                             split
  --take NAME=COUNT,...      keeps only COUNT images of a split (0: none)

Numbers of images are those in the finished shards. The images are chosen by a hash of --seed
and their names, so the choice does not depend on their order, on --workers or on --part. If one
is left out (unreadable, a duplicate, ...), the next one in this order replaces it. For this,
the build packs --spare more images than needed and drops those that are not used. If too few
are left, the build fails with one line.

examples:
  Places365  --splits train=places365_train_standard.txt:data_256,val=places365_val.txt:val_256
  COCO 2014  --splits source --rename train2014=train,val2014=val --take train=8000,val=2000
  CIFAR-10   --splits source --carve val=train:5000

"""
BUILD_HELP = """\
Every image is either packed or listed in OUT/left_out.tsv with the reason: unreadable,
too small, grey (--drop-grey), duplicate, or decompression bomb. Images that the options for
splits do not choose are only counted, and do not count as left out.

exit status: 0 all images packed, 1 some left out, 2 user error (one line), 70 bug, 130 Ctrl-C

Run the same command again to resume an interrupted build; unreadable images are then read
again. Images are identified by name: if the content of an image changes, build into a new OUT.

To use several machines, run the same command with --part 1/8 ... --part 8/8, in any order or
at the same time, into one shared OUT or into separate folders; then run `colortrain shards
merge`. A part may be run again. The result is byte-identical to a build without --part. A part
is a range of consecutive blocks (of 1,000 images each in a large set).

example:
  colortrain shards build photos photos-256 --size 256 --splits train=0.95,val=0.05
"""

MIN_SIDE_HELP = (
    "leave out images whose shorter side has fewer than N pixels (default: half of --size, so that "
    "no image is enlarged by more than a factor of 2)"
)

MERGE_HELP = """\
Checks every block against its record, links or copies the blocks of each PART_DIR into OUT,
removes duplicates, and writes the indexes and the manifest. If blocks are missing, it lists
them and exits with status 2.

exit status: as for `build`

example:
  colortrain shards merge photos-256
"""

VERIFY_HELP = """\
Compares every byte with the manifest, the records and the indexes. The exit status is 0 if the
shard set is intact. Otherwise it is 2, and one line names the first damaged shard, member and
byte range.

example:
  colortrain shards verify photos-256
"""

STATISTICS_HELP = """\
Counts, for each split, the pixels in bins of 10 x 10 units of ab (centred at the multiples of 10
from -110 to 110, as in Zhang et al. 2016), and computes the mean and the standard deviation of
L, a and b. To use several machines, run --part 1/8 ... --part 8/8, each of which processes a
part of the shards; then --merge writes the same file as a single run.

example:
  colortrain shards statistics photos-256 --json colours.json
"""


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `colortrain shards` command in `argv` and return its exit status.

    The status is 1 if a build or a merge left out images, else 0. Raises UserError if
    the arguments are invalid or the command fails.
    """
    args = make_parser().parse_args(argv)
    status: int = args.run(args)
    return status


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError for invalid arguments."""

    def error(self, message: str) -> NoReturn:
        # argparse's own parser prints the usage and exits instead.
        raise UserError(f"{message} (see `{self.prog} --help`)")


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of `colortrain shards` with all its subcommands."""
    parser = _Parser(
        prog="colortrain shards",
        description="Build, check and describe shards of CIELAB arrays from photographs.",
        epilog="example: colortrain shards build photos photos-256 --size 256",
    )
    commands = parser.add_subparsers(required=True, metavar="build|merge|verify|info|statistics")
    _add_build(commands)
    _add_merge(commands)
    _add_verify(commands)
    _add_info(commands)
    _add_statistics(commands)
    return parser


Subparsers = argparse._SubParsersAction


def _add_command(
    commands: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    epilog: str,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_build(commands: Subparsers) -> None:
    parser = _add_command(
        commands,
        "build",
        _build,
        "pack photographs into shards",
        SOURCE_HELP + SPLITS_HELP + BUILD_HELP,
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", help="the images (see below)")
    add("out", metavar="OUT", type=Path, help="a new folder, or the folder of a build to resume")
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
        help="how an image becomes square: crop its centre, squash it, or pad it with black "
        "(default: crop)",
    )
    add(
        "--dtype",
        choices=DTYPES,
        default="uint8",
        help="data type of the stored samples; maximum error: 0.2 in L and 0.5 in a and b for "
        "uint8, 2^-5 for float16 (default: uint8)",
    )
    _add_split_options(parser)
    add("--drop-grey", action="store_true", help="leave out grayscale images")
    add("--min-side", type=int, default=-1, metavar="N", help=MIN_SIDE_HELP)
    add(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        metavar="N",
        help="leave out images of more than N pixels as decompression bombs "
        f"(default: {MAX_PIXELS:,})",
    )
    add(
        "--shard-size",
        type=int,
        default=0,
        metavar="N",
        help="images per shard (default: 1000, fewer for small sets)",
    )
    _add_workers(
        parser, "number of processes (default: all cores); the output is the same for any number"
    )
    add("--part", metavar="I/N", help="pack only part I of N; `merge` then completes the set")
    add(
        "--strict",
        action="store_true",
        help="fail with exit status 2 and write no manifest if an image is left out",
    )


def _add_split_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--splits", default="", metavar="VALUE", help="assign images to splits (see below)")
    add("--rename", default="", metavar="OLD=NEW,...", help="rename splits")
    add(
        "--carve",
        default="",
        metavar="NEW=OLD:AMOUNT,...",
        help="move some images of a split to a new split, for example val=train:5000",
    )
    add("--take", default="", metavar="NAME=COUNT,...", help="keep only some images of a split")
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="choose other images for the same numbers or fractions (default: 0)",
    )
    add(
        "--spare",
        type=float,
        default=DEFAULT_SPARE,
        metavar="FRACTION",
        help="with numbers of images: pack so many more, as replacements for those that are left "
        f"out (default: {DEFAULT_SPARE})",
    )


def _build(args: argparse.Namespace) -> int:
    parameters = Parameters(
        **{field.name: getattr(args, field.name) for field in dataclasses.fields(Parameters)}
    )
    options = _build_options(args)
    if args.part is not None:
        part = build_part(args.source, parameters, parse_part(args.part), options)
        return 1 if part.left_out else 0
    return 1 if build(args.source, parameters, options).failures else 0


def _build_options(args: argparse.Namespace) -> BuildOptions:
    return BuildOptions(out=args.out, workers=check_workers(args.workers), strict=args.strict)


def _add_merge(commands: Subparsers) -> None:
    summary = "merge the parts of `build --part` into one shard set"
    parser = _add_command(commands, "merge", _merge, summary, MERGE_HELP)
    add = parser.add_argument
    add(
        "out",
        metavar="OUT",
        type=Path,
        help="the folder in which the parts were built, or a new folder",
    )
    add(
        "parts",
        metavar="PART_DIR",
        type=Path,
        nargs="*",
        help="other folders with parts of the same build",
    )
    _add_workers(parser)
    add("--strict", action="store_true", help="fail if any image, even a duplicate, is left out")


def _merge(args: argparse.Namespace) -> int:
    return 1 if merge(args.parts, _build_options(args)).failures else 0


def _add_verify(commands: Subparsers) -> None:
    summary = "verify every byte of a shard set and report the first damaged one"
    parser = _add_command(commands, "verify", _verify, summary, VERIFY_HELP)
    _add_out(parser)
    _add_workers(parser)


def _add_info(commands: Subparsers) -> None:
    epilog = "example:\n  colortrain shards info photos-256 --sheet sheet.png"
    parser = _add_command(commands, "info", _info, "print what a shard set contains", epilog)
    _add_out(parser)
    add = parser.add_argument
    add("--sheet", type=Path, metavar="FILE", help="also write the first samples as one PNG")
    add(
        "--count",
        type=int,
        default=64,
        metavar="N",
        help="number of samples on the sheet (default: 64)",
    )


def _add_statistics(commands: Subparsers) -> None:
    summary = "compute the colour statistics of a shard set"
    parser = _add_command(commands, "statistics", _statistics, summary, STATISTICS_HELP)
    _add_out(parser)
    _add_workers(parser)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="output file (default: OUT/statistics.json)"
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--part",
        metavar="I/N",
        help="process part I of N of the shards and write OUT/statistics-I-of-N.json (or --json)",
    )
    mode.add_argument(
        "--merge",
        type=Path,
        nargs="*",
        metavar="FILE",
        help="merge the files that --part wrote (default: those in OUT)",
    )


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="a folder written by `colortrain shards build`"
    )


def _add_workers(
    parser: argparse.ArgumentParser, summary: str = "number of processes (default: all cores)"
) -> None:
    parser.add_argument("--workers", type=int, default=available_cores(), metavar="N", help=summary)


def _verify(args: argparse.Namespace) -> int:
    manifest = verify(args.out, check_workers(args.workers))
    samples = sum(manifest.samples(split) for split in manifest.splits)
    print(f"{args.out}: all {samples:,} samples are intact, dataset {manifest.dataset_id}")
    return 0


def _info(args: argparse.Namespace) -> int:
    manifest = load_manifest(args.out)
    print(describe(args.out, manifest))
    if args.sheet:
        save_sheet(args.out, manifest, args.sheet, args.count)
    return 0


def _statistics(args: argparse.Namespace) -> int:
    workers = check_workers(args.workers)
    if args.part is not None:
        return _statistics_of_part(args.out, parse_part(args.part), workers, args.json)
    path = args.json or args.out / "statistics.json"
    merging = args.merge is not None
    document = (
        merge_statistics(args.out, args.merge) if merging else compute_statistics(args.out, workers)
    )
    save_statistics(document, path)
    for split, each in document["splits"].items():
        values = ", ".join(
            f"{name} {each['mean'][name]:.2f} +- {each['std'][name]:.2f}" for name in "Lab"
        )
        print(f"{split}: {each['samples']:,} samples, {values}")
    print(f"written to {path}")
    return 0


def _statistics_of_part(out: Path, part: Part, workers: int, path: Path | None) -> int:
    document = statistics_of_part(out, part, workers)
    path = path or part_path(out, part)
    save_statistics(document, path)
    print(
        f"{out}: part {part} written to {path}; "
        f"when all parts are done: colortrain shards statistics {out} --merge"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command("shards", main))
