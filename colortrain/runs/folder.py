"""What a run stands on: the photographs it is given, and the folder it may write into."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from colortrain.data.tar_stream import open_stream
from colortrain.recipe import Recipe, differences, load_recipe
from colortrain.runs.layout import lock_file, recipe_file
from shards.errors import UserError
from shards.files import lock as lock_path
from shards.read.cache import Cache
from shards.read.dataset import Split
from shards.read.mixture import Mixture, Samples, open_training
from shards.read.order import ORDER_VERSION


@dataclass(frozen=True)
class TrainingData:
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
) -> TrainingData:
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
    return TrainingData(train, first.sibling(held_out) if held_out else None, workers, max_damaged)


def open_streamed(
    pattern: str,
    recipe: Recipe,
    *,
    epoch_images: int,
    workers: int = 1,
    corrupt_limit: float = 0.0,
    validation: Split | None = None,
) -> TrainingData:
    """Tars without an index, read front to back: nothing is counted before, and nothing about it is exact."""
    stream = open_stream(pattern, recipe.size, epoch_images)
    return TrainingData(stream, validation, workers, math.ceil(corrupt_limit * epoch_images))


def lock(run: Path) -> IO[bytes]:
    """Hold RUN/.lock as long as the file returned stays open, which ends with the process however it ends.

    Raises `UserError` if another process holds it.
    """
    message = f"{run} is being trained by another process: wait for it, or choose another --run"
    return lock_path(lock_file(run), message)


def check_run_folder(run: Path, recipe: Recipe) -> None:
    """Raise `UserError` if `run` holds something else than an earlier start of the same recipe."""
    if run.is_file():
        raise UserError(f"{run} is a file: give a folder as --run")
    if recipe_file(run).is_file():
        earlier = load_recipe(recipe_file(run))
        if earlier.digest != recipe.digest:
            changes = "; ".join(differences(earlier, recipe))
            raise UserError(
                f"{run} holds a run of another recipe ({changes}): choose another --run"
            )
    elif run.is_dir() and any(not _ours(path) for path in run.iterdir()):
        raise UserError(f"{run} is not empty and holds no run: choose another --run")


def check_checkpoint(
    folder: Path, state: Mapping[str, Any], recipe: Recipe, dataset_id: str
) -> None:
    """Raise `UserError` if a checkpoint was made with another recipe, other shards or in another order of samples."""
    run = folder.parent.parent
    changes = differences(load_recipe(recipe_file(folder)), recipe)
    if changes:
        raise UserError(
            f"{folder} is of another recipe ({'; '.join(changes)}): choose another --run"
        )
    if state["dataset_id"] != dataset_id:
        raise UserError(
            f"{run} was trained on dataset {state['dataset_id']}, the shards given are {dataset_id}: "
            f"give the same shards, or another --run"
        )
    if state["order"] != ORDER_VERSION:
        raise UserError(
            f"{folder} counts positions in order {state['order']}, this version in {ORDER_VERSION}: "
            "go on with the version that wrote it, or begin anew in another --run with --init-from"
        )


def _ours(path: Path) -> bool:
    """Whether a start that was killed before it wrote recipe.json may have left this."""
    return path == lock_file(path.parent) or path.name.endswith(".tmp")
