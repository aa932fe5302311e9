"""Which checkpoints of a run stay: the newest, some along the way, and the best by a metric of the validation split."""

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
)
from shards.errors import UserError, unknown
from shards.files import write_atomic

# What a validation along a training can be best by.
CHOICES = [metric.name for metric in METRICS.values() if not metric.needs]


@dataclass(frozen=True)
class Best:
    """The best checkpoint so far; `distance` to what is wanted is comparable within one metric: lower is better."""

    metric: str
    step: int
    value: float
    distance: float


def check_keep_best(recipe: Recipe, has_validation: bool) -> None:
    """Raise `UserError` unless validation measures what `keep_best` asks for."""
    if recipe.keep_best and recipe.keep_best not in CHOICES:
        raise unknown("metric of keep_best", recipe.keep_best, CHOICES)
    if recipe.keep_best and not has_validation:
        raise UserError(
            f"keep_best={recipe.keep_best}: the shards have no split to validate on; leave it out"
        )


def contender(metric: str, step: int, scores: Mapping[str, Mapping[str, float]]) -> Best:
    """How good the generator of a step is by one metric, in the direction in which that is better."""
    values = scores[metric]
    distance = METRICS[metric].distance(values["generated"], values.get("truth"))
    return Best(metric, step, values["generated"], distance)


def better(new: Best, old: Best | None) -> bool:
    """Whether a checkpoint is better than the best so far; not a number never is."""
    return not math.isnan(new.distance) and (old is None or new.distance < old.distance)


def save_best(run: Path, best: Best | None) -> None:
    """Write `best.json`, or remove it where there is none."""
    path = best_file(run)
    if best is None:
        path.unlink(missing_ok=True)
    else:
        write_atomic(path, json.dumps(dataclasses.asdict(best), indent=1).encode())


def resumed_best(run: Path, metric: str, state: Mapping[str, Any] | None) -> Best | None:
    """The best so far as a checkpoint's state has it; None where it is gone, or was best by another metric."""
    if not state or state["metric"] != metric or not checkpoint_folder(run, state["step"]).is_dir():
        return None
    return Best(**state)


def kept(steps: Collection[int], step: int, newest: int, every: int, best: int | None) -> set[int]:
    """Of the checkpoints there are, those to keep after saving `step`.

    Those of later steps are damaged ones that this run fell back over: they go.
    """
    earlier = sorted(other for other in steps if other <= step)
    marked = {
        other for other in earlier if other == best or (every and other and other % every == 0)
    }
    return marked | set(earlier[-newest:])


def prune(run: Path, step: int, newest: int, every: int = 0, best: int | None = None) -> None:
    """After saving `step`: delete the checkpoints that need not stay, and what killed runs left behind."""
    steps = checkpoint_steps(run)
    for other in set(steps) - kept(steps, step, newest, every, best):
        folder = checkpoint_folder(run, other)
        folder.rename(
            folder.with_name(f"{folder.name}.tmp-old")
        )  # killed while deleting, it must not look damaged
    for wreck in checkpoints_folder(run).glob("step-*.tmp-*"):
        shutil.rmtree(wreck, ignore_errors=True)
