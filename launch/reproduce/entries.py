"""One network of a table: its recipe for this budget, its training and its scores, each made once."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from colortrain.models.initialise import num_parameters
from colortrain.recipe import Recipe, load_recipe, save_recipe
from colortrain.recipes import RECIPES, get_recipe
from colortrain.runs.checkpoint import latest_checkpoint, load_state
from colortrain.runs.history import read_journal
from colortrain.runs.layout import checkpoint_folder, checkpoint_steps, evaluation_file, recipe_file
from launch.compare import prepared, run
from launch.processes import launcher, num_processes_for
from launch.reproduce.conditions import commit
from launch.reproduce.feature_classifier import Judge
from launch.reproduce.options import Asked, Plan
from shards.errors import UserError
from shards.files import write_atomic

_SCORES = "scores.json"  # in a run's folder, beside what launch.evaluate wrote
_COST = "cost.json"
PEAK = "peak.json"  # which `launch.reproduce.train_worker` leaves there
_NEVER_VALIDATED = 10**9


@dataclass(frozen=True)
class Entry:
    """A network of the table: what it is trained by, and where."""

    recipe: Recipe
    folder: Path

    @property
    def name(self) -> str:
        """The recipe's name and seed."""
        return f"{self.recipe.name}, seed {self.recipe.seed}"


def entries(asked: Asked, plan: Plan, size: int) -> list[Entry]:
    """All networks of the table: every recipe with the first seed, then every recipe with the next."""
    return [
        Entry(
            dataclasses.replace(resolved(name, asked, size, plan.images), seed=seed),
            asked.out / f"{name}-{seed}",
        )
        for seed in asked.seeds
        for name in asked.recipes
    ]


def resolved(name: str, asked: Asked, size: int, images: int) -> Recipe:
    """A recipe as this table trains it: thin unless it is to have its published size, saved four times on its way."""
    if asked.base_channels is not None:
        return prepared(name, size, asked.base_channels, images)
    recipe = get_recipe(name)
    steps = -(-images // recipe.batch_size)
    every = max(1, steps // 4)
    return dataclasses.replace(
        recipe,
        images=images,
        log_every=max(1, steps // 50),
        evaluate_every=_NEVER_VALIDATED,
        checkpoint_every=every,
        keep_checkpoints=5,
    )


def train(entry: Entry, shards: Path) -> dict[str, Any]:
    """Train a network, or go on with it; what it cost. One that is at its end stays as it is."""
    cost = entry.folder / _COST
    if finished(entry) and cost.is_file():
        return dict(json.loads(cost.read_text()))
    written = entry.folder.parent / "recipes" / f"{entry.folder.name}.json"
    save_recipe(entry.recipe, written)
    words: list[str | Path] = [
        "--recipe",
        written,
        "--shards",
        shards,
        "--run",
        entry.folder,
        "--tracker",
        "none",
    ]
    run(entry.name, [*starter(entry.recipe), "-m", "launch.reproduce.train_worker", *words])
    found = {**told(entry.folder), "parameters": parameters(entry.recipe), "commit": commit()}
    write_atomic(cost, json.dumps(found).encode())
    return found


def starter(recipe: Recipe) -> list[str]:
    """What starts a training: a process for each GPU that its batch can be shared by; one where there is none.

    One GPU has a launcher too: precision must not depend on how many there are. On CPUs one process has all cores, as
    when the plan measured how fast the recipe is: small pictures in small batches leave two waiting for each other.
    """
    return (
        launcher(num_processes_for(recipe.batch_size))
        if torch.cuda.device_count()
        else [sys.executable]
    )


def finished(entry: Entry) -> bool:
    """Whether the run folder holds exactly this network, trained to its end; raises `UserError` if it saw more."""
    latest = latest_checkpoint(entry.folder)
    if latest is None:
        return False
    seen, whole = load_state(latest)["images"], entry.recipe.total_images(1)
    if seen >= whole + entry.recipe.batch_size:
        raise UserError(
            f"{entry.folder} saw {seen:,} images, more than the {whole:,} of this budget: another --out"
        )
    return seen >= whole and load_recipe(recipe_file(latest)).digest == entry.recipe.digest


def score(
    entry: Entry, shards: Path, limit: int | None, judge: Judge | None, curve: bool = False
) -> dict[str, Any]:
    """Everything `launch.evaluate` prints and the distance in the judge's eyes; made once for each checkpoint.

    `curve` scores the kept checkpoints before it as well: {"curve": [{"images": ..., a metric: ...}, ...]}.
    """
    latest = latest_checkpoint(entry.folder)
    assert latest is not None
    asked = {"checkpoint": latest.name, "limit": limit, "judge": judge.digest if judge else None}
    kept = entry.folder / _SCORES
    if kept.is_file() and (known := json.loads(kept.read_text()))["asked"] == asked:
        return dict(known["result"])
    steps = checkpoint_steps(entry.folder)
    earlier = [evaluated(entry, shards, limit, step) for step in steps[:-1]] if curve else []
    document = evaluated(entry, shards, limit, steps[-1])
    result = {"recipe": entry.recipe.name, "seed": entry.recipe.seed, **document}
    if curve:
        result["curve"] = [point(found) for found in (*earlier, document)]
    if judge:
        result["metrics"]["fid"] = judge.distances(entry.folder, shards, limit)
    write_atomic(kept, json.dumps({"asked": asked, "result": result}).encode())
    return result


def finished_rows(out: Path, judge: Judge | None) -> tuple[list[dict[str, Any]], list[str]]:
    """What `score` and `train` found of every network that `out` holds, in the order of the recipes, then of seeds.

    Their distances are this judge's; then the folders of those that another one scored: a table has one judge.
    """
    place = {name: number for number, name in enumerate(RECIPES)}
    rows, others = [], []
    for path in sorted(out.glob(f"*/{_SCORES}")):
        known, cost = json.loads(path.read_text()), path.parent / _COST
        if known["asked"]["judge"] != (judge.digest if judge else None):
            others.append(path.parent.name)
        elif cost.is_file():
            rows.append({**known["result"], **json.loads(cost.read_text())})
    return sorted(rows, key=lambda row: (place.get(row["recipe"], len(place)), row["seed"])), others


def evaluated(entry: Entry, shards: Path, limit: int | None, step: int) -> dict[str, Any]:
    """What `launch.evaluate` says of a step's checkpoint, and how many images the network had seen."""
    found = evaluation_file(entry.folder, step)
    line = [
        sys.executable,
        "-m",
        "launch.evaluate",
        "--run",
        str(entry.folder),
        "--shards",
        str(shards),
    ]
    limited = ["--limit", str(limit)] if limit else []
    run(entry.name, [*line, "--checkpoint", str(step), "--json", str(found), *limited])
    return {
        "images": load_state(checkpoint_folder(entry.folder, step))["images"],
        **json.loads(found.read_text()),
    }


def point(document: dict[str, Any]) -> dict[str, float]:
    """A place on a training's curve: images seen, and nazeri's three figures."""
    figures = {
        name: document["metrics"][name]["generated"] for name in ("mae", "accuracy_2", "accuracy_5")
    }
    return {"images": document["images"], **figures}


def told(folder: Path) -> dict[str, Any]:
    """What a run says of itself: seconds of training and precision of all its starts, and its peak memory."""
    lines = read_journal(folder)
    starts = [line for line in lines if line["kind"] == "start"]
    return {
        "seconds": float(sum(line["seconds"] for line in lines if line["kind"] == "train")),
        "mixed_precision": sorted({line.get("mixed_precision", "unknown") for line in starts}),
        **json.loads((folder / PEAK).read_text()),
    }


def parameters(recipe: Recipe) -> int:
    """What the generator learns."""
    with torch.device("meta"):
        return num_parameters(recipe.generator.build())
