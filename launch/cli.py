"""The list of commands, their parser class, and conversions of the texts of options."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Literal, NoReturn

from shards.errors import UserError, command_name
from shards.read.cache import Cache

# Group -> command -> (module with a `main(argv)`, one phrase for `colortrain --help`).
COMMAND_GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "data": {
        "shards": (
            "shards.__main__",
            "convert images to Lab shards: build, merge, verify, info, statistics",
        ),
    },
    "training": {
        "demo": (
            "launch.demo",
            "try the whole workflow in minutes (shards, training, ...) on bundled photographs",
        ),
        "recipes": ("launch.recipes", "list all recipes, or print one in full"),
        "train": ("launch.train", "train a recipe on a shard set, or resume a run"),
        "compare": (
            "launch.compare",
            "train several recipes on the same shards and tabulate their scores",
        ),
        "reproduce": (
            "launch.reproduce",
            "reproduce the papers' tables: shards, training, scores",
        ),
    },
    "using a network": {
        "colorize": ("launch.colorize", "colorize photographs of any size, and videos"),
        "serve": ("launch.serve", "start a local web page that colorizes photographs"),
        "export": (
            "launch.export",
            "export a network for colortrain.load, as ONNX, or to the Hugging Face Hub",
        ),
    },
    "measuring": {
        "evaluate": (
            "launch.evaluate",
            "score a trained network on a split, compared with a grayscale baseline",
        ),
        "report": ("launch.report.__main__", "write an HTML report on one or several runs"),
        "benchmark": (
            "launch.benchmark",
            "measure how fast this machine reads shards, builds shards and trains",
        ),
    },
    "clusters": {
        "submit": ("slurm.submit", "train on a SLURM cluster; preempted jobs save and resume"),
        "build_shards": ("slurm.build_shards", "build shards as a SLURM job array"),
        "sweep": ("slurm.sweep", "train many variants of a recipe as a SLURM job array"),
        "status": ("slurm.status", "show the state of runs, from SLURM and their run folders"),
        "devcluster": (
            "slurm.devcluster.__main__",
            "run a real SLURM cluster of several nodes on this machine, for development",
        ),
    },
}
COMMANDS: dict[str, tuple[str, str]] = {
    name: command for group in COMMAND_GROUPS.values() for name, command in group.items()
}


class CommandParser(argparse.ArgumentParser):
    """An argument parser that raises UserError and whose help ends with an example.

    program: the name of the command, such as "train", or its module, such as
    "launch.train".
    """

    def __init__(self, program: str, description: str, example: str) -> None:
        super().__init__(
            prog=command_name(program),
            description=description,
            epilog=example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def at_least_one(text: str) -> int:
    """Convert an option's text to a whole number of at least 1.

    Raises argparse.ArgumentTypeError for any other text.
    """
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def at_least_zero(text: str) -> int:
    """Convert an option's text to a whole number of at least 0.

    Raises argparse.ArgumentTypeError for any other text.
    """
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def step_or_best(text: str) -> int | Literal["best"]:
    """Convert the text of --checkpoint to the number of a step or to "best".

    Raises argparse.ArgumentTypeError for any other text.
    """
    if text == "best":
        return "best"
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a step or `best`, got {text!r}")
    return int(text)


def fraction(text: str) -> float:
    """Convert an option's text to a number above 0 and at most 1.

    Raises argparse.ArgumentTypeError for any other text.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text!r}")
    return value


def gigabytes(text: str) -> float:
    """Convert an option's text to a size in GB (1e9 bytes), finite and above 0.

    Raises argparse.ArgumentTypeError for any other text.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value * 1e9 < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of gigabytes above 0, got {text!r}")
    return value


def add_cache_arguments(parser: argparse.ArgumentParser) -> None:
    """Add to a parser --cache and --cache-size, for a local cache of remote shards."""
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder to which shards at a URL are downloaded",
    )
    parser.add_argument(
        "--cache-size",
        type=gigabytes,
        default=100.0,
        metavar="GB",
        help="maximum size of --cache, for all processes of a machine together; the least "
        "recently used shards are removed (default: 100)",
    )


def make_cache(args: argparse.Namespace) -> Cache | None:
    """Return the cache that --cache and --cache-size describe, None without --cache."""
    return Cache(args.cache, int(args.cache_size * 1e9)) if args.cache else None
