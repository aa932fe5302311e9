"""Describe the conditions of a table of `colortrain reproduce`: device, code, data."""

from __future__ import annotations

import csv
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from launch.benchmark.machine import describe_machine
from launch.reproduce.datasets import Sets
from launch.reproduce.feature_classifier import FeatureClassifier
from launch.reproduce.options import Plan, ReproduceOptions
from shards.read.dataset import Split, open_held_out


def conditions(
    options: ReproduceOptions,
    plan: Plan,
    sets: Sets,
    classifier: FeatureClassifier | None,
    results: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return everything that the scores in a table depend on, as a dict for JSON.

    results: the table's rows, one dict with scores and cost per network.
    """
    held_out = open_held_out(sets.held_out)
    precisions = {each for row in results for each in row.get("mixed_precision", ["unknown"])}
    return {
        **options.shared(),
        **asdict(plan),
        "judge": classifier.describe() if classifier else None,
        "commit": git_commit(),  # of the code that scores the networks now
        "trained_at": sorted({row.get("commit") or "unknown" for row in results}),
        "mixed_precision": sorted(precisions),
        "processes": sorted({each for row in results for each in row.get("processes", [])}),
        "peak_of": sorted({row.get("peak_of", "resident memory") for row in results}),
        "machine": describe_machine(),
        "training_pictures": len(Split(sets.train, "train")),
        "left_out": left_out(sets.train),
        "held_out": f"{held_out.name} of {held_out.dataset_id}",
        "held_out_pictures": min(len(held_out), plan.limit or len(held_out)),
        "size": sets.size,
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
