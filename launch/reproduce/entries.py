"""Train and score the networks of a results table of `colortrain reproduce`."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch

from colortrain.differences import differences, stretched
from colortrain.models.initialise import num_parameters
from colortrain.recipe import Recipe, load_recipe, save_recipe
from colortrain.recipes import RECIPES, get_recipe
from colortrain.runs.checkpoint import latest_checkpoint, load_state
from colortrain.runs.history import read_journal
from colortrain.runs.layout import checkpoint_folder, checkpoint_steps, evaluation_file, recipe_file
from colortrain.scale_down import with_weights
from launch.compare import prepare_recipe, run_process
from launch.processes import training_launcher
from launch.reproduce.conditions import git_commit
from launch.reproduce.feature_classifier import FeatureClassifier
from launch.reproduce.options import Plan, ReproduceOptions
from shards.errors import UserError
from shards.files import write_atomic
from shards.json_files import read_json
from shards.read.dataset import Split

# Files in a run folder in addition to those of `colortrain train` and `evaluate`.
_SCORES = "scores.json"
_COST = "cost.json"
PEAK = "peak.json"  # written by `launch.reproduce.train_worker`
CLASSIFIER_DISTANCE = "frechet_classifier"  # its name among the metrics
_NEVER = 10**9  # steps between validations: more than any run has


class Peak(TypedDict):
    """The values in peak.json."""

    peak_mb: float
    peak_of: str


class _Cost(TypedDict):
    seconds: float


class _Scores(TypedDict):
    metrics: dict[str, dict[str, float | None]]


class _Result(TypedDict):
    recipe: str
    seed: int


_Scored = TypedDict("_Scored", {"asked": dict[str, Any], "result": _Result})  # noqa: UP013


def _read_result(path: Path, kind: Any) -> dict[str, Any]:
    """Return the values in a JSON file of a run folder of the table.

    Raises UserError if they do not have the types in the TypedDict `kind`.
    """
    values: dict[str, Any] = read_json(path, kind, f"delete {path.parent} to train it again")
    return values


@dataclass(frozen=True)
class TableEntry:
    """One network of a results table: its recipe with the seed, and its run folder."""

    recipe: Recipe
    run: Path

    @property
    def name(self) -> str:
        """The recipe's name and seed, such as "nazeri_gan, seed 0"."""
        return f"{self.recipe.name}, seed {self.recipe.seed}"


def make_entries(options: ReproduceOptions, plan: Plan, size: int) -> list[TableEntry]:
    """Return the networks of a results table: one for each seed and recipe."""
    return [
        TableEntry(
            dataclasses.replace(resolve_recipe(name, options, size, plan.images), seed=seed),
            options.out / f"{name}-{seed}",
        )
        for seed in options.seeds
        for name in options.recipes
    ]


def resolve_recipe(name: str, options: ReproduceOptions, size: int, images: int) -> Recipe:
    """Return the recipe `name`, adapted to the options of `colortrain reproduce`.

    size: side of the images in pixels; images: number of images to train on. Raises
    UserError if the recipe cannot be trained on images of this size.
    """
    recipe = _resolve(name, options, size, images)
    return stretched(recipe) if options.stretch_schedules else recipe


def _resolve(name: str, options: ReproduceOptions, size: int, images: int) -> Recipe:
    if options.base_channels is not None:
        return prepare_recipe(name, size, options.base_channels, images, options.weights)
    recipe = with_weights(get_recipe(name), options.weights)
    steps = -(-images // recipe.batch_size)
    return dataclasses.replace(
        recipe,
        images=images,
        log_every=max(1, steps // 50),
        # validations are needed only by rules that depend on them
        evaluate_every=recipe.evaluate_every if recipe.plateau.patience else _NEVER,
        checkpoint_every=max(1, steps // 4),
        keep_checkpoints=5,
    )


def train(entry: TableEntry, shards: Path) -> dict[str, Any]:
    """Train a network, or resume its training, unless it is finished; return the cost.

    The cost has the seconds of training, the peak memory and the generator's number of
    parameters. Raises UserError if training fails.
    """
    cost_file = entry.run / _COST
    if is_finished(entry) and cost_file.is_file():
        return _read_result(cost_file, _Cost)
    saved_recipe = entry.run.parent / "recipes" / f"{entry.run.name}.json"
    save_recipe(entry.recipe, saved_recipe)
    args = ["--recipe", saved_recipe, "--shards", shards, "--run", entry.run, "--tracker", "none"]
    worker = ["-m", "launch.reproduce.train_worker"]
    run_process(entry.name, [*training_launcher(entry.recipe), *worker, *args])
    cost = {
        **measured_cost(entry.run),
        "parameters": generator_parameters(entry.recipe),
        "commit": git_commit(),
        "differences": differences(entry.recipe, len(Split(shards, "train"))),
    }
    write_atomic(cost_file, json.dumps(cost).encode())
    return cost


def is_finished(entry: TableEntry) -> bool:
    """Return whether an entry's network is fully trained, with the entry's recipe.

    Raises UserError if it was trained on more images than the recipe says.
    """
    latest = latest_checkpoint(entry.run)
    if latest is None:
        return False
    state = load_state(latest)
    seen, total = state["images"], entry.recipe.total_images(1)
    if seen >= total + entry.recipe.batch_size:
        raise UserError(
            f"{entry.run} was trained on {seen:,} images, more than the {total:,} of this budget: "
            "choose another --out"
        )
    if state.get("validation_due"):  # the last validation was interrupted
        return False
    return seen >= total and load_recipe(recipe_file(latest)).digest == entry.recipe.digest


def score(
    entry: TableEntry,
    shards: Path,
    limit: int | None,
    classifier: FeatureClassifier | None,
    curve: bool = False,
) -> dict[str, Any]:
    """Return a network's scores, with the Fréchet distance of `classifier` if given.

    limit: number of held-out images to score (None: all); curve: whether to score
    earlier checkpoints too, for {"curve": [{"images": ..., metric: ...}, ...]} in the
    result. Earlier results for the same request are reused. Raises UserError if scoring
    fails.
    """
    latest = latest_checkpoint(entry.run)
    assert latest is not None
    judge = classifier.digest if classifier else None
    request = {
        "distance": CLASSIFIER_DISTANCE,
        "checkpoint": latest.name,
        "limit": limit,
        "judge": judge,
    }
    scores_file = entry.run / _SCORES
    if scores_file.is_file():
        earlier = _read_result(scores_file, _Scored)
        if earlier["asked"] == request:
            return dict(earlier["result"])
    *before, last = checkpoint_steps(entry.run)
    documents = [evaluate(entry, shards, limit, step) for step in before] if curve else []
    document = evaluate(entry, shards, limit, last)
    result = {"recipe": entry.recipe.name, "seed": entry.recipe.seed, **document}
    if curve:
        result["curve"] = [curve_point(each) for each in (*documents, document)]
    if classifier:
        result["metrics"][CLASSIFIER_DISTANCE] = classifier.distances(entry.run, shards, limit)
    write_atomic(scores_file, json.dumps({"asked": request, "result": result}).encode())
    return result


def finished_rows(
    out: Path, classifier: FeatureClassifier | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of the results table, and the run folders that are left out.

    A row has the scores and the cost of one network. Left out are the runs in `out`
    that were scored with another classifier.
    """
    order = {name: number for number, name in enumerate(RECIPES)}
    rows, others = [], []
    for path in sorted(out.glob(f"*/{_SCORES}")):
        document, cost_file = _read_result(path, _Scored), path.parent / _COST
        if document["asked"].get("judge") != (classifier.digest if classifier else None):
            others.append(path.parent.name)
        elif cost_file.is_file():
            rows.append({**document["result"], **_read_result(cost_file, _Cost)})
    rows.sort(key=lambda row: (order.get(row["recipe"], len(order)), row["seed"]))
    return rows, others


def evaluate(entry: TableEntry, shards: Path, limit: int | None, step: int) -> dict[str, Any]:
    """Run `colortrain evaluate` on a network's checkpoint of step `step`.

    Returns the scores, and as "images" the number of images seen until that step.
    Raises UserError if the command fails.
    """
    scores_file = evaluation_file(entry.run, step)
    args = ["--run", entry.run, "--shards", shards, "--checkpoint", str(step)]
    limited = ["--limit", str(limit)] if limit else []
    run_process(
        entry.name,
        [sys.executable, "-m", "launch.evaluate", *args, "--json", scores_file, *limited],
    )
    images = load_state(checkpoint_folder(entry.run, step))["images"]
    return {"images": images, **_read_result(scores_file, _Scores)}


def curve_point(document: dict[str, Any]) -> dict[str, float]:
    """Return a point of a training curve: images seen, MAE, accuracy at 2 % and at 5 %.

    document: the images seen and the scores of one checkpoint.
    """
    # The metrics of the table of `colortrain reproduce nazeri`.
    metrics = ("mae", "accuracy_2", "accuracy_5")
    values = {name: document["metrics"][name]["generated"] for name in metrics}
    return {"images": document["images"], **values}


def measured_cost(run: Path) -> dict[str, Any]:
    """Return a run's seconds of training, peak memory, precisions and processes."""
    lines = read_journal(run)
    starts = [line for line in lines if line["kind"] == "start"]
    trained = [line for line in lines if line["kind"] == "train"]
    return {
        "seconds": float(sum(line.get("seconds", 0.0) for line in trained)),
        "mixed_precision": sorted({line.get("mixed_precision", "unknown") for line in starts}),
        "processes": sorted({line["world"] for line in starts if "world" in line}),
        **_read_result(run / PEAK, Peak),
    }


def generator_parameters(recipe: Recipe) -> int:
    """Return the number of trainable parameters of a recipe's generator."""
    with torch.device("meta"):
        return num_parameters(recipe.generator.build())
