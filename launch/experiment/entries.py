"""Train and score the networks of an experiment, each in processes of its own."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch

from colortrain.differences import differences
from colortrain.models.initialise import num_parameters
from colortrain.recipe import Recipe, load_recipe, save_recipe
from colortrain.recipes import RECIPES
from colortrain.runs.checkpoint import latest_checkpoint, load_state
from colortrain.runs.history import read_journal
from colortrain.runs.layout import evaluation_file, recipe_file
from launch.experiment.conditions import git_commit
from launch.experiment.feature_classifier import FeatureClassifier
from launch.experiment.options import ExperimentOptions, Network, Plan
from launch.experiment.prepare import prepare_recipe
from launch.experiment.sets import Sets
from launch.processes import training_launcher
from shards.errors import UserError
from shards.files import write_atomic
from shards.json_files import read_json

# Files in a run folder in addition to those of `colortrain train` and `evaluate`.
_SCORES = "scores.json"
_COST = "cost.json"
PEAK, DIVERGED = "peak.json", "diverged.json"  # written by `launch.experiment.train_worker`
CLASSIFIER_DISTANCE = "frechet_classifier"  # its name among the metrics


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
    network: str
    seed: int


class _Scored(TypedDict):
    request: dict[str, Any]
    result: _Result


def _read_result(path: Path, kind: Any) -> dict[str, Any]:
    """Return the values in a JSON file of a run folder of the table.

    Raises UserError if they do not have the types in the TypedDict `kind`.
    """
    values: dict[str, Any] = read_json(path, kind, f"delete {path.parent} to train it again")
    return values


@dataclass(frozen=True)
class TableEntry:
    """One row of a table: a network, its recipe with the seed, and its run folder."""

    network: Network
    recipe: Recipe
    run: Path

    @property
    def name(self) -> str:
        """The network's name and seed, such as "nazeri_gan, seed 0"."""
        return f"{self.network.name}, seed {self.recipe.seed}"


def make_entries(options: ExperimentOptions, plan: Plan, dataset_size: int) -> list[TableEntry]:
    """Return the rows of a table: one for each seed and network.

    dataset_size: number of training images. Raises UserError if a recipe cannot be
    trained at the size of the options.
    """
    return [
        TableEntry(
            network,
            dataclasses.replace(
                prepare_recipe(network, options, plan.images, dataset_size), seed=seed
            ),
            options.out / f"{network.name}-{seed}",
        )
        for seed in options.seeds
        for network in options.networks
    ]


def train(entry: TableEntry, sets: Sets) -> dict[str, Any]:
    """Train a network, or resume its training, unless it is finished; return the cost.

    The cost has the seconds of training, the peak memory and the generator's number of
    parameters. A network that diverges is finished too. Raises UserError if training
    fails in another way.
    """
    cost_file, dataset_size = entry.run / _COST, sets.training_images()
    if cost_file.is_file() and (has_diverged(entry) or is_finished(entry, dataset_size)):
        return _read_result(cost_file, _Cost)
    saved_recipe = entry.run.parent / "recipes" / f"{entry.run.name}.json"
    save_recipe(entry.recipe, saved_recipe)
    args = ["--recipe", saved_recipe, "--shards", sets.train, "--run", entry.run]
    worker = ["-m", "launch.experiment.train_worker", *args, "--tracker", "none"]
    try:
        _run_process(entry.name, [*training_launcher(entry.recipe), *worker])
    except UserError:
        if not has_diverged(entry):
            raise
    diverged = ["diverged"] if has_diverged(entry) else []
    cost = {
        **measured_cost(entry.run),
        "images": entry.recipe.total_images(dataset_size),
        "parameters": generator_parameters(entry.recipe),
        "commit": git_commit(),
        "differences": [*differences(entry.recipe, dataset_size), *diverged],
    }
    write_atomic(cost_file, json.dumps(cost).encode())
    return cost


def _run_process(name: str, command: Sequence[object]) -> None:
    """Run a command and wait for its end.

    Raises UserError, with a message that starts with `name`, if the command fails.
    """
    args = [str(arg) for arg in command]
    if status := subprocess.run(args, check=False).returncode:
        raise UserError(
            f"{name}: `{' '.join(args[1:])}` failed with exit status {status}; see its output above"
        )


def has_diverged(entry: TableEntry) -> bool:
    """Return whether the training of an entry's network diverged."""
    return (entry.run / DIVERGED).is_file()


def is_finished(entry: TableEntry, dataset_size: int) -> bool:
    """Return whether an entry's network is fully trained, with the entry's recipe.

    dataset_size: number of training images. Raises UserError if it was trained on more
    images than the recipe says.
    """
    latest = latest_checkpoint(entry.run)
    if latest is None:
        return False
    state = load_state(latest)
    seen, total = state["images"], entry.recipe.total_images(dataset_size)
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
    sets: Sets,
    limit: int | None,
    options: ExperimentOptions,
    classifier: FeatureClassifier | None,
) -> dict[str, Any]:
    """Return a network's scores, with the Fréchet distance of `classifier` if given.

    limit: number of images to score (None: all). A network that diverged has no scores.
    Earlier results for the same request are reused. Raises UserError if scoring fails.
    """
    latest = latest_checkpoint(entry.run)
    request = {
        "distance": CLASSIFIER_DISTANCE,
        "checkpoint": None if has_diverged(entry) or latest is None else latest.name,
        "limit": limit,
        "classifier": classifier.digest if classifier else None,
        "weights": list(options.scoring),
    }
    scores_file = entry.run / _SCORES
    if scores_file.is_file():
        earlier = _read_result(scores_file, _Scored)
        if earlier["request"] == request:
            return dict(earlier["result"])
    result = {
        "network": entry.network.name,
        "recipe": entry.recipe.name,
        "seed": entry.recipe.seed,
        **({"metrics": {}} if has_diverged(entry) else evaluate(entry, sets, limit, options)),
    }
    if classifier and result["metrics"]:
        distances = classifier.distances(entry.run, sets.scored(), limit)
        result["metrics"][CLASSIFIER_DISTANCE] = distances
    write_atomic(scores_file, json.dumps({"request": request, "result": result}).encode())
    return result


def evaluate(
    entry: TableEntry, sets: Sets, limit: int | None, options: ExperimentOptions
) -> dict[str, Any]:
    """Run `colortrain evaluate` on a network's newest checkpoint and return the scores.

    Raises UserError if the command fails.
    """
    scores_file = evaluation_file(entry.run)
    args = ["--run", entry.run, "--shards", sets.held_out, "--json", scores_file]
    args += ["--split", sets.split] if sets.split else []
    args += ["--limit", str(limit)] if limit else []
    args += options.scoring
    _run_process(entry.name, [sys.executable, "-m", "launch.evaluate", *args])
    return _read_result(scores_file, _Scores)


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
        if document["request"].get("classifier") != (classifier.digest if classifier else None):
            others.append(path.parent.name)
        elif cost_file.is_file():
            rows.append({**document["result"], **_read_result(cost_file, _Cost)})
    rows.sort(key=lambda row: (order.get(row["recipe"], len(order)), row["network"], row["seed"]))
    return rows, others


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
