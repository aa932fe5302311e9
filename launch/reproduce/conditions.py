"""Under what conditions a table was made: device, code, data, numbers."""

from __future__ import annotations

import csv
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from launch.benchmark.machine import machine
from launch.reproduce.datasets import Sets
from launch.reproduce.feature_classifier import Judge
from launch.reproduce.options import Asked, Plan
from shards.read.dataset import Split, open_held_out


def conditions(
    asked: Asked, plan: Plan, built: Sets, judge: Judge | None, results: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Everything that a figure of the table depends on, ready for JSON; `commit` scored, `trained_at` trained."""
    held_out = open_held_out(built.held_out)
    return {
        **asked.plain(),
        **asdict(plan),
        "judge": judge.describe() if judge else None,
        "commit": commit(),
        "trained_at": sorted({row.get("commit") or "unknown" for row in results}),
        "mixed_precision": sorted(
            {each for row in results for each in row.get("mixed_precision", ["unknown"])}
        ),
        "peak_of": sorted({row.get("peak_of", "resident memory") for row in results}),
        "machine": machine(),
        "training_pictures": len(Split(built.train, "train")),
        "left_out": left_out(built.train),
        "held_out": f"{held_out.name} of {held_out.dataset_id}",
        "held_out_pictures": min(len(held_out), plan.limit or len(held_out)),
        "size": built.size,
    }


def left_out(shards: Path) -> dict[str, int]:
    """How many pictures of the source a build left out, by reason."""
    path = shards / "left_out.tsv"
    if not path.is_file():
        return {}
    with path.open(newline="") as stream:
        return dict(Counter(reason for _, reason, *_ in csv.reader(stream, delimiter="\t")))


def commit() -> str | None:
    """The commit of this code, "-dirty" after it where files differ; None where it lies in no repository."""
    here = Path(__file__).resolve().parent
    line = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--match", ""]
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
