"""The words with which doors take trained networks, one or several, and the networks themselves."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from colortrain.inference.colorizer import Colorizer, load
from launch.cli import step_or_best
from shards.errors import UserError


def add_network_arguments(words: argparse.ArgumentParser) -> None:
    """--run (any number of times), --checkpoint, --ema and --device."""
    words.add_argument(
        "--run",
        required=True,
        action="append",
        type=Path,
        metavar="DIR",
        help="what launch.train or launch.export wrote; several times: side by side",
    )
    add_weight_arguments(words)
    words.add_argument("--device", help="cpu, cuda, cuda:1, ...; default a GPU if there is one")


def add_weight_arguments(words: argparse.ArgumentParser) -> None:
    """--checkpoint and --ema: which of a run's weights."""
    words.add_argument(
        "--checkpoint",
        type=step_or_best,
        metavar="STEP",
        help="use this step's checkpoint, or the `best` (of a run with keep_best), not the newest",
    )
    words.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="averaged weights where there are any",
    )


def load_networks(arguments: argparse.Namespace) -> dict[str, Colorizer]:
    """The networks asked for, by name, on the device asked for."""
    device = choose_device(arguments.device)
    return {
        name: load(run, checkpoint=arguments.checkpoint, ema=arguments.ema, device=device)
        for name, run in named(arguments.run).items()
    }


def named(runs: Sequence[Path]) -> dict[str, Path]:
    """Runs by their folders' names, with the folder above where those are the same; raises `UserError` for twins."""
    folders = [run.resolve() for run in runs]
    if len(set(folders)) < len(folders):
        raise UserError(
            f"--run {Counter(map(str, folders)).most_common(1)[0][0]} is given twice: leave one out"
        )
    counts = Counter(folder.name for folder in folders)
    names = [
        folder.name if counts[folder.name] == 1 else f"{folder.parent.name}-{folder.name}"
        for folder in folders
    ]
    if len(set(names)) < len(names):
        raise UserError(
            f"several runs would be called {Counter(names).most_common(1)[0][0]}: rename one's folder"
        )
    return dict(zip(names, runs, strict=True))


def choose_device(word: str | None) -> torch.device:
    """The device asked for, or a GPU if there is one; raises `UserError` if this machine has no such device."""
    try:
        device = torch.device(word or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {word}: {str(error).splitlines()[0]}") from None
    return device
