"""Describe the conditions of an experiment: device, code, data."""

from __future__ import annotations

import csv
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from launch.benchmark.machine import describe_machine
from launch.experiment.feature_classifier import FeatureClassifier
from launch.experiment.options import ExperimentOptions, Plan
from launch.experiment.sets import Sets


def conditions(
    options: ExperimentOptions,
    plan: Plan,
    sets: Sets,
    classifier: FeatureClassifier | None,
    results: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return everything that the scores in a table depend on, as a dict for JSON.

    results: the table's rows, one dict with scores and cost per network.
    """
    scored = sets.scored()
    precisions = {each for row in results for each in row.get("mixed_precision", ["unknown"])}
    return {
        **options.shared(),
        **asdict(plan),
        "classifier": classifier.describe() if classifier else None,
        "commit": git_commit(),  # of the code that scores the networks now
        "trained_at": sorted({row.get("commit") or "unknown" for row in results}),
        "mixed_precision": sorted(precisions),
        "processes": sorted({each for row in results for each in row.get("processes", [])}),
        "peak_of": sorted({row.get("peak_of", "resident memory") for row in results}),
        "machine": describe_machine(),
        "training_images": sets.training_images(),
        "left_out": left_out(sets.train),
        "scored": f"{scored.name} of {scored.dataset_id}",
        "scored_images": min(len(scored), plan.limit or len(scored)),
        "note": sets.note,
        "metrics": list(options.metrics),
    }


def left_out(shards: Path) -> dict[str, int]:
    """Return how many source images are not in a shard set, by reason: {"grey": 12}.

    shards: folder of the shard set.
    """
    path = shards / "left_out.tsv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        return dict(Counter(reason for _, reason, *_ in csv.reader(stream, delimiter="\t")))


def git_commit() -> str | None:
    """Return the abbreviated git commit of this code, or None outside a repository.

    "-dirty" is appended if files differ from the commit.
    """
    here = Path(__file__).resolve().parent
    line = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--match", ""]
    try:
        done = subprocess.run(
            line, capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
