"""What the doors share: the list of them, and a parser whose complaints are one line."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Literal, NoReturn

from shards.errors import UserError
from shards.read.cache import Cache

# Name -> (module with a `main(argv)`, one phrase). Listed in the order in which people need them.
COMMANDS: dict[str, tuple[str, str]] = {
    "shards": (
        "shards.__main__",
        "photographs to Lab shards: build, merge, verify, info, statistics",
    ),
    "train": ("launch.train", "train a recipe on a shard set, or go on where a run stopped"),
    "evaluate": ("launch.evaluate", "score a trained run on a split, beside grey pictures"),
    "report": (
        "launch.report.__main__",
        "what became of runs, in one HTML file that opens from disk",
    ),
    "colorize": ("launch.colorize", "colour photographs of any size, and films, with trained runs"),
    "export": (
        "launch.export",
        "a trained network as a folder for colortrain.load, as ONNX, to the Hugging Face Hub",
    ),
    "serve": (
        "launch.serve",
        "a page on this machine: drop a photograph, see it coloured by one run or several",
    ),
    "compare": ("launch.compare", "recipes on the same shards for the same number of images"),
    "reproduce": (
        "launch.reproduce",
        "the papers' tables, each from one command: shards, training, scores, picture",
    ),
    "benchmark": (
        "launch.benchmark",
        "how fast this machine reads and packs, beside other libraries",
    ),
    "recipes": ("launch.recipes", "all recipes in a table, or one in full"),
    "submit": (
        "slurm.submit",
        "train on a SLURM cluster: evicted, out of time or requeued, it saves and goes on",
    ),
    "build_shards": ("slurm.build_shards", "pack shards as a SLURM job array"),
    "sweep": ("slurm.sweep", "many runs of a recipe as a SLURM job array, and their table"),
    "status": ("slurm.status", "what SLURM and the run folders say of runs"),
    "devcluster": (
        "slurm.devcluster.__main__",
        "a real SLURM of several nodes on this machine, to develop on",
    ),
    "demo": ("launch.demo", "everything once in a minute, on pictures that come along"),
}


class CommandParser(argparse.ArgumentParser):
    """An argument parser for `python -m <program>`: mistakes are a `UserError`, the help ends with an example."""

    def __init__(self, program: str, description: str, example: str) -> None:
        super().__init__(
            prog=f"python -m {program}",
            description=description,
            epilog=example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the words)")


def at_least_one(text: str) -> int:
    """The type of a count, for `add_argument(type=...)`."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"needs a whole number of at least 1, got {text!r}")
    return int(text)


def at_least_zero(text: str) -> int:
    """The type of a count that may be none."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"needs a whole number of at least 0, got {text!r}")
    return int(text)


def step_or_best(text: str) -> int | Literal["best"]:
    """The type of `--checkpoint`."""
    if text == "best":
        return "best"
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"needs a step or the word best, got {text!r}")
    return int(text)


def share(text: str) -> float:
    """The type of a part of the whole: above 0, at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"needs a share above 0 and at most 1, got {text!r}")
    return value


def gigabytes(text: str) -> float:
    """The type of a size: above 0, and with an end."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value * 1e9 < math.inf:
        raise argparse.ArgumentTypeError(f"needs a number of gigabytes above 0, got {text!r}")
    return value


def add_cache_arguments(words: argparse.ArgumentParser) -> None:
    """The words for shard sets at a URL."""
    words.add_argument(
        "--cache", type=Path, metavar="DIR", help="for --shards URL: the folder to bring shards to"
    )
    words.add_argument(
        "--cache-size",
        type=gigabytes,
        default=100.0,
        metavar="GB",
        help="what --cache may take, the least recently used go; all processes of a machine share it (default: 100)",
    )


def make_cache(asked: argparse.Namespace) -> Cache | None:
    """The cache that was asked for."""
    return Cache(asked.cache, int(asked.cache_size * 1e9)) if asked.cache else None
