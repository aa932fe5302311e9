"""Which checkpoints of a run are kept: the newest, some earlier ones, and the best.

Three fields of the recipe decide: `keep_checkpoints` is the number of newest
checkpoints, `keep_every` additionally keeps those at multiples of that many steps, and
`keep_best` names the validation metric by which the best checkpoint is chosen.
"""

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

# The metrics that validation during training measures: the valid values of `keep_best`.
VALIDATION_METRICS = [metric.name for metric in METRICS.values() if not metric.needs]


@dataclass(frozen=True)
class Best:
    """The best checkpoint of a run so far; its fields are those of best.json.

    `value` is the generator's value of `metric`, and `distance` is how far that value
    is from the best possible one: lower is better. Distances are comparable only
    between values of the same metric.
    """

    metric: str
    step: int
    value: float
    distance: float


def check_keep_best(recipe: Recipe, has_validation: bool) -> None:
    """Raise UserError if validation cannot measure the metric `recipe.keep_best`.

    That is the case if the metric is unknown or not computed during training, or if the
    shards have no split for validation.
    """
    if recipe.keep_best and recipe.keep_best not in VALIDATION_METRICS:
        raise unknown("metric of keep_best", recipe.keep_best, VALIDATION_METRICS)
    if recipe.keep_best and not has_validation:
        raise UserError(
            f"keep_best={recipe.keep_best}: the shards have no split to validate on: "
            "leave keep_best out, or give shards with a held-out split"
        )


def candidate_best(metric: str, step: int, scores: Mapping[str, Mapping[str, float]]) -> Best:
    """Return the checkpoint of `step` as a candidate for the best checkpoint.

    `scores` are the validation scores at that step: metric -> version -> value, where a
    version is "generated", "truth" or the name of a baseline.
    """
    values = scores[metric]
    distance = METRICS[metric].distance(values["generated"], values.get("truth"))
    return Best(metric, step, values["generated"], distance)


def better(new: Best, old: Best | None) -> bool:
    """Return whether `new` is better than `old`, the best checkpoint so far or None.

    A candidate whose distance is NaN is never better.
    """
    return not math.isnan(new.distance) and (old is None or new.distance < old.distance)


def save_best(run: Path, best: Best | None) -> None:
    """Write RUN/checkpoints/best.json, or delete it if `best` is None."""
    path = best_file(run)
    if best is None:
        path.unlink(missing_ok=True)
    else:
        write_atomic(path, json.dumps(dataclasses.asdict(best), indent=1).encode())


def resumed_best(run: Path, metric: str, state: Mapping[str, Any] | None) -> Best | None:
    """Return the best checkpoint so far of a run that resumes.

    `state` holds the fields of `Best` as saved in the checkpoint from which the run
    resumes. The result is None if `state` is empty, if that best checkpoint has been
    deleted, or if it was chosen by another metric than `metric`.
    """
    if not state or state["metric"] != metric or not checkpoint_folder(run, state["step"]).is_dir():
        return None
    return Best(**{field.name: state[field.name] for field in dataclasses.fields(Best)})


def steps_to_keep(
    steps: Collection[int], step: int, newest: int, every: int, best: int | None
) -> set[int]:
    """Return which of the existing checkpoints to keep after `step` was saved.

    `steps` are the steps of all checkpoints. The last `newest` ones, those at multiples
    of `every` steps (0: none) and the one of step `best` are kept. Checkpoints later
    than `step` are not kept: they were damaged, so the run has resumed from an earlier
    one.
    """
    earlier = sorted(other for other in steps if other <= step)
    marked = {
        other for other in earlier if other == best or (every and other and other % every == 0)
    }
    return marked | set(earlier[-newest:])


def prune(run: Path, step: int, newest: int, every: int = 0, best: int | None = None) -> None:
    """Delete the checkpoints that `steps_to_keep` does not keep after `step` was saved.

    Incomplete folders of killed runs are deleted as well. `newest`, `every` and `best`
    are the arguments of `steps_to_keep`.
    """
    steps = checkpoint_steps(run)
    for other in set(steps) - steps_to_keep(steps, step, newest, every, best):
        folder = checkpoint_folder(run, other)
        # rename it first: if deleting is interrupted, the rest must not look damaged
        folder.rename(folder.with_name(f"{folder.name}.tmp-old"))
    for leftover in checkpoints_folder(run).glob("step-*.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
