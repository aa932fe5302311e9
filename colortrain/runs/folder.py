"""Open a run's training data, and check its folder."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colortrain.data.tar_stream import open_stream
from colortrain.recipe import Recipe, differences, load_recipe
from colortrain.runs.layout import lock_file, recipe_file
from shards.errors import UserError
from shards.files import check_utf8
from shards.format.manifest import TRAIN
from shards.read.cache import Cache
from shards.read.dataset import Split
from shards.read.mixture import Mixture, Samples, open_training
from shards.read.order import ORDER_VERSION


@dataclass(frozen=True)
class TrainingData:
    """A run's training samples, its validation samples, and options for reading.

    `chosen` describes the splits that are not the default ones, e.g. "train=train2014".
    """

    train: Samples
    validation: Split | None  # by default "val", "validation" or "test", if there is one
    workers: int = 1  # threads that read ahead
    max_damaged: int = 0  # number of damaged samples that may be replaced before the run ends
    chosen: tuple[str, ...] = ()

    @property
    def dataset_id(self) -> str:
        """Identifies the shard sets and the chosen splits."""
        return ":".join((self.train.dataset_id, *self.chosen))


def open_data(
    shards: str | Path | Sequence[str],
    recipe: Recipe,
    *,
    workers: int = 1,
    corrupt_limit: float = 0.0,
    cache: Cache | None = None,
    train_split: str | None = None,
    validation_split: str | None = None,
) -> TrainingData:
    """Open the shard sets (`DIR` or `DIR:WEIGHT`) that a recipe is trained on.

    `corrupt_limit` is the fraction of the training samples that may be damaged. The
    training split is by default "train" or the only split, the validation split "val",
    "validation" or "test", and never the training split. Raises UserError if the shards
    cannot be opened, lack a split or have another image size than the recipe.
    """
    train = open_training(shards, train_split, cache=cache)
    first = train.parts[0] if isinstance(train, Mixture) else train
    if train.size != recipe.size:
        raise UserError(
            f"{first.root} contains {train.size} px samples, recipe {recipe.name} requires "
            f"{recipe.size} px: give --set size={train.size}, or build shards with --size "
            f"{recipe.size}"
        )
    validation = _open_validation(first, validation_split)
    max_damaged = math.ceil(corrupt_limit * len(train))
    return TrainingData(train, validation, workers, max_damaged, _chosen(first, validation))


def _open_validation(train: Split, name: str | None) -> Split | None:
    """Open the split `name`, or by default the held-out split, of a training set."""
    if name is not None:
        train.manifest.check_split(name, train.root)
    name = name or train.manifest.held_out(train.name)
    return train.sibling(name) if name else None


def _chosen(train: Split, validation: Split | None) -> tuple[str, ...]:
    """Describe the splits of a shard set that are not the default ones."""
    chosen = []
    if train.name != TRAIN and len(train.manifest.splits) > 1:
        chosen.append(f"train={train.name}")
    default = train.manifest.held_out(train.name)
    if validation is not None and validation.name != default:
        chosen.append(f"validation={validation.name}")
    return tuple(chosen)


def open_streamed(
    pattern: str,
    recipe: Recipe,
    *,
    epoch_images: int,
    workers: int = 1,
    corrupt_limit: float = 0.0,
    validation: Split | None = None,
) -> TrainingData:
    """Open plain WebDataset tars, which have no index, as training data for a recipe.

    `epoch_images` is the number of images that count as one epoch; `corrupt_limit` is
    the fraction of them that may be damaged. Raises UserError if no file matches the
    pattern.
    """
    stream = open_stream(pattern, recipe.size, epoch_images)
    return TrainingData(stream, validation, workers, math.ceil(corrupt_limit * epoch_images))


def check_run_folder(run: Path, recipe: Recipe) -> None:
    """Raise UserError unless `run` is new, empty, or contains a run of this recipe."""
    check_utf8(run)
    if os.fsencode(run) != str(run).encode(errors="replace"):  # the locale is not UTF-8
        raise UserError(
            f"the path {run} is not ASCII, as TensorBoard requires in this locale: "
            "choose another --run, or set LC_ALL=C.UTF-8"
        )
    if run.is_file():
        raise UserError(f"{run} is a file: give a folder as --run")
    if recipe_file(run).is_file():
        earlier = load_recipe(recipe_file(run))
        # ignores fields that may change when a run resumes, for instance its length
        if earlier.digest != recipe.digest:
            changes = "; ".join(differences(earlier, recipe))
            raise UserError(
                f"{run} contains a run of another recipe ({changes}): choose another --run"
            )
    elif run.is_dir() and any(not _is_leftover(path) for path in run.iterdir()):
        raise UserError(f"{run} is not empty and contains no run: choose another --run")


def check_checkpoint(
    folder: Path, state: Mapping[str, Any], recipe: Recipe, dataset_id: str
) -> None:
    """Raise UserError unless a run can resume from the checkpoint in `folder`.

    `state` is the content of the checkpoint's trainer.json.
    """
    run = folder.parent.parent
    changes = differences(load_recipe(recipe_file(folder)), recipe)
    if changes:
        raise UserError(
            f"{folder} belongs to another recipe ({'; '.join(changes)}): choose another --run"
        )
    if state.get("dataset_id") != dataset_id:
        raise UserError(
            f"{run} was trained on dataset {state.get('dataset_id')}, but the given shards are "
            f"{dataset_id}: give the same shards, or another --run"
        )
    if state.get("order") != ORDER_VERSION:
        raise UserError(
            f"{folder} uses sample order {state.get('order')}, this version uses {ORDER_VERSION}: "
            "resume it with the version that wrote it, or start another --run with --init-from"
        )


def _is_leftover(path: Path) -> bool:
    """Return whether a file may be left from a run that was killed at its start."""
    # such a run had not yet written recipe.json
    return path == lock_file(path.parent) or path.name.endswith(".tmp")
