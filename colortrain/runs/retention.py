"""Which checkpoints of a run are kept: the newest, some earlier ones, and the best."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colortrain.metrics.registry import METRICS
from colortrain.recipe import Recipe
from colortrain.runs.layout import (
    best_file,
    checkpoint_folder,
    checkpoint_steps,
    checkpoints_folder,
    journal_file,
    recipe_file,
    samples_folder,
    trackers_file,
)
from shards.errors import UserError, unknown
from shards.files import write_atomic
from shards.read.dataset import Split

# The metrics that validation during training measures: the valid values of `keep_best`.
VALIDATION_METRICS = [metric.name for metric in METRICS.values() if not metric.needs]


@dataclass(frozen=True)
class Best:
    """The best checkpoint of a run so far; its fields are the same as in best.json."""

    metric: str
    step: int
    value: float  # the generator's value of `metric`
    distance: float  # of `value` from the best value; lower is better


def check_steering(recipe: Recipe, validation: Split | None) -> None:
    """Raise UserError if scores cannot or must not steer a run as its recipe says.

    They steer it through `keep_best` and `plateau`. `validation` is the split that the
    run validates on, if any.
    """
    if recipe.keep_best and recipe.keep_best not in VALIDATION_METRICS:
        raise unknown("metric of keep_best", recipe.keep_best, VALIDATION_METRICS)
    if recipe.keep_best and validation is None:
        raise UserError(
            f"keep_best={recipe.keep_best}: the shards have no split to validate on: "
            "leave keep_best out, or give shards with a held-out split"
        )
    steers = "keep_best" if recipe.keep_best else "plateau" if recipe.plateau.patience else ""
    if steers and validation is not None and validation.name.lower().startswith("test"):
        off = "keep_best=" if recipe.keep_best else "plateau.patience=0"
        raise UserError(
            f"{steers} would steer the run by the test images: hold out training images "
            "(`shards build --splits source --carve val=train:0.1`), choose another split with "
            f"--validation-split, or give --set {off}"
        )


def candidate_best(metric: str, step: int, scores: Mapping[str, Mapping[str, float]]) -> Best:
    """Return the checkpoint of `step` as a candidate for the best checkpoint.

    scores: metric -> "generated", "truth" or a baseline -> value.
    """
    values = scores[metric]
    distance = METRICS[metric].distance(values["generated"], values.get("truth"))
    return Best(metric, step, values["generated"], distance)


def better(new: Best, old: Best | None) -> bool:
    """Return whether `new` is better than `old`, the best checkpoint so far, if any."""
    return not math.isnan(new.distance) and (old is None or new.distance < old.distance)


def save_best(run: Path, best: Best | None) -> None:
    """Write RUN/checkpoints/best.json, or delete it if `best` is None."""
    path = best_file(run)
    if best is None:
        path.unlink(missing_ok=True)
    else:
        write_atomic(path, json.dumps(dataclasses.asdict(best), indent=1).encode())


def resumed_best(run: Path, metric: str, state: Mapping[str, Any] | None) -> Best | None:
    """Return the best checkpoint so far of a run that resumes; None if there is none.

    `state` holds the fields of `Best`, as saved in the checkpoint from which the run
    resumes.
    """
    if not state or state["metric"] != metric or not checkpoint_folder(run, state["step"]).is_dir():
        return None
    return Best(**{field.name: state[field.name] for field in dataclasses.fields(Best)})


def remove_temporaries(run: Path) -> None:
    """Remove temporary files that a killed training process left in a run folder.

    The caller must hold the lock on the folder. Files of other commands stay.
    """
    trained = (recipe_file(run), journal_file(run), trackers_file(run))
    own = [path for each in trained for path in run.glob(f".{each.name}.*.tmp")]
    folders = (checkpoints_folder(run), samples_folder(run))
    for path in (*own, *(path for folder in folders for path in folder.glob(".*.tmp"))):
        path.unlink(missing_ok=True)


def steps_to_keep(
    steps: Collection[int], step: int, newest: int, every: int, best: int | None
) -> set[int]:
    """Return which of the existing checkpoints to keep after `step` was saved.

    `steps` are the steps of all checkpoints. The last `newest` of them, the multiples
    of `every` (0: none) and `best` are kept.
    """
    # later checkpoints were damaged, so the run has resumed from an earlier one
    earlier = sorted(other for other in steps if other <= step)
    marked = {
        other for other in earlier if other == best or (every and other and other % every == 0)
    }
    return marked | set(earlier[-newest:])


def prune(run: Path, step: int, newest: int, every: int = 0, best: int | None = None) -> None:
    """Delete the checkpoints that `steps_to_keep` does not keep after `step` was saved.

    `newest`, `every` and `best` are arguments of `steps_to_keep`.
    """
    steps = checkpoint_steps(run)
    for other in set(steps) - steps_to_keep(steps, step, newest, every, best):
        folder = checkpoint_folder(run, other)
        # rename it first: if deleting is interrupted, the rest must not look damaged
        folder.rename(folder.with_name(f"{folder.name}.tmp-old"))
    for leftover in checkpoints_folder(run).glob("step-*.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)  # also folders of killed runs
