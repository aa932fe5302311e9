"""Command-line options that select trained networks, and functions that load them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from colortrain.distributed.device import default_device
from colortrain.inference.colorizer import Colorizer, load
from launch.cli import step_or_best
from shards.errors import UserError


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add to a parser --run (repeatable), --checkpoint, --ema and --device."""
    parser.add_argument(
        "--run",
        required=True,
        action="append",
        type=Path,
        metavar="DIR",
        help="a run folder, or a folder written by `colortrain export`; repeat the option to "
        "compare several networks",
    )
    add_weight_arguments(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")


def add_weight_arguments(parser: argparse.ArgumentParser) -> None:
    """Add to a parser --checkpoint and --ema, which select the weights of a run."""
    parser.add_argument(
        "--checkpoint",
        type=step_or_best,
        metavar="STEP",
        help="the checkpoint of this step, or `best` for runs with keep_best (default: the newest)",
    )
    parser.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="use the exponential moving average of the weights if the run has one (default: yes)",
    )


def load_networks(args: argparse.Namespace) -> dict[str, Colorizer]:
    """Load the network of each --run to the device of --device; return them by name.

    Raises UserError if a folder contains no network or is given twice, or if there is
    no such device.
    """
    device = choose_device(args.device)
    return {
        name: load(run, checkpoint=args.checkpoint, ema=args.ema, device=device)
        for name, run in name_runs(args.run).items()
    }


def name_runs(runs: Sequence[Path]) -> dict[str, Path]:
    """Return the run folders by name, with a different name for each.

    A name is FOLDER, or PARENT-FOLDER if several folders have the same name. Raises
    UserError if a run is given twice, or if two names are equal even then.
    """
    folders = [run.resolve() for run in runs]
    if len(set(folders)) < len(folders):
        raise UserError(
            f"--run {Counter(map(str, folders)).most_common(1)[0][0]} is given twice: remove one"
        )
    counts = Counter(folder.name for folder in folders)
    names = [
        folder.name if counts[folder.name] == 1 else f"{folder.parent.name}-{folder.name}"
        for folder in folders
    ]
    if len(set(names)) < len(names):
        raise UserError(
            f"several runs would have the name {Counter(names).most_common(1)[0][0]}: "
            "rename one of their folders"
        )
    return dict(zip(names, runs, strict=True))


def choose_device(name: str | None) -> torch.device:
    """Return the device called `name`; if that is None, the default device.

    The default is a GPU if there is one, else the CPU. Raises UserError if this machine
    has no such device, or if it has a GPU that torch cannot use and `name` is None.
    """
    try:
        device = torch.device(name) if name else default_device()
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device
