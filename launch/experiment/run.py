"""Run an experiment: train and score its networks, write the table and the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from colortrain.recipes import RECIPES
from launch.experiment import table
from launch.experiment.conditions import conditions
from launch.experiment.entries import finished_rows, make_entries, score, train
from launch.experiment.feature_classifier import FeatureClassifier
from launch.experiment.figures import draw_curves, draw_samples
from launch.experiment.options import ExperimentOptions, Plan
from launch.experiment.sets import Sets
from shards.files import write_atomic
from shards.read.dataset import open_held_out

FILES = "table.md, table.json, picture.png, curves.png"


def run_experiment(
    options: ExperimentOptions,
    plan: Plan,
    sets: Sets,
    photos: Path | None,
    classifier: FeatureClassifier | None = None,
) -> str:
    """Train and score the networks that are not finished; return the table as Markdown.

    OUT/table.json and OUT/table.md are written after each network; OUT/picture.png and
    OUT/curves.png at the end. photos: shard set whose photographs picture.png shows, or
    None for the images that are scored. Raises UserError if training or scoring fails.
    """
    results: list[dict[str, Any]] = []
    text, entries = "", make_entries(options, plan, sets.training_images())
    for number, entry in enumerate(entries, 1):
        print(f"\n== {entry.name} ({number} of {len(entries)})", flush=True)
        train(entry, sets)
        score(entry, sets, plan.limit, options, classifier)
        results, others = finished_rows(options.out, classifier)
        facts = conditions(options, plan, sets, classifier, results)
        facts["other_classifiers"] = others
        text = table.markdown(results, facts)
        document = {"conditions": facts, "results": results}
        write_atomic(options.out / "table.json", json.dumps(document, indent=1).encode() + b"\n")
        write_atomic(options.out / "table.md", text.encode())
    runs = _runs(options.out, results)
    draw_samples(
        runs, open_held_out(photos) if photos else sets.scored(), options.out / "picture.png"
    )
    draw_curves(runs, options.metrics, options.out / "curves.png")
    return text


def _runs(out: Path, results: list[dict[str, Any]]) -> dict[str, Path]:
    """Return the run folder of each network's first seed, by name, in table order.

    Networks that diverged, or that this version does not know, are left out.
    """
    known = [row for row in results if row["recipe"] in RECIPES and row["metrics"]]
    first = {row["network"]: row["seed"] for row in reversed(known)}
    names = dict.fromkeys(row["network"] for row in known)
    return {name: out / f"{name}-{first[name]}" for name in names}
