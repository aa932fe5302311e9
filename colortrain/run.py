"""What a run stands on: the photographs it is given, and the folder it may write into."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from colortrain.recipe import Recipe, differences, load_recipe
from shards.cache import Cache
from shards.errors import UserError
from shards.files import lock as lock_file
from shards.mixture import Mixture, Samples, open_training
from shards.reader import Split


@dataclass(frozen=True)
class Data:
    """The photographs to learn from, and those held out (`val` or `test`; None where there is no such split).

    `workers` threads read ahead; up to `max_damaged` damaged samples are replaced by others, more end the run.
    """

    train: Samples
    validation: Split | None
    workers: int = 1
    max_damaged: int = 0


def open_data(
    shards: str | Path | Sequence[str],
    recipe: Recipe,
    *,
    workers: int = 1,
    corrupt_limit: float = 0.0,
    cache: Cache | None = None,
) -> Data:
    """Open the shard sets (`DIR` or `DIR:WEIGHT`) for a recipe; raises `UserError` if their sizes differ.

    The first set's held-out split is scored on. `corrupt_limit` is a share of the samples.
    """
    train = open_training(shards, cache=cache)
    first = train.parts[0] if isinstance(train, Mixture) else train
    if train.size != recipe.size:
        raise UserError(
            f"{first.root} holds {train.size} px samples, recipe {recipe.name} needs {recipe.size} px: "
            f"--set size={train.size}, or build shards with --size {recipe.size}"
        )
    held_out = first.manifest.held_out()
    max_damaged = math.ceil(corrupt_limit * len(train))
    return Data(train, first.sibling(held_out) if held_out else None, workers, max_damaged)


def lock(run: Path) -> IO[bytes]:
    """Hold RUN/.lock as long as the file returned stays open, which ends with the process however it ends.

    Raises `UserError` if another process holds it.
    """
    message = f"{run} is being trained by another process: wait for it, or choose another --run"
    return lock_file(run / ".lock", message)


def check_run_folder(run: Path, recipe: Recipe) -> None:
    """Raise `UserError` if `run` holds something else than an earlier start of the same recipe."""
    if run.is_file():
        raise UserError(f"{run} is a file: give a folder as --run")
    if (run / "recipe.json").is_file():
        earlier = load_recipe(run / "recipe.json")
        if earlier.digest != recipe.digest:
            changes = "; ".join(differences(earlier, recipe))
            raise UserError(f"{run} holds a run of another recipe ({changes}): choose another --run")
    elif run.is_dir() and any(not _ours(path) for path in run.iterdir()):
        raise UserError(f"{run} is not empty and holds no run: choose another --run")


def _ours(path: Path) -> bool:
    """Whether a start that was killed before it wrote recipe.json may have left this."""
    return path.name == ".lock" or path.name.endswith(".tmp")
