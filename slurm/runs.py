"""The state of a run, read from its folder without torch (login nodes may lack it)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from colortrain.runs.history import read_document, read_journal, read_lines
from colortrain.runs.layout import (
    MANIFEST,
    jobs_file,
    recipe_file,
    starts_file,
    sweep_file,
    written_checkpoints,
)
from shards.files import path_below
from shards.json_files import read_json


class _Job(TypedDict):
    job: str


class _Start(TypedDict):
    job: str
    step: int


class _Length(TypedDict, total=False):
    images: int | None
    epochs: float


def record_job(run: Path, job_id: str, facts: Mapping[str, Any]) -> None:
    """Append a submitted job to jobs.jsonl in the run folder: id, time and `facts`."""
    with open(jobs_file(run), "a", encoding="utf-8") as stream:
        stream.write(
            json.dumps({"job": job_id, "submitted": round(time.time(), 3), **facts}) + "\n"
        )


def latest_job(run: Path) -> str | None:
    """Return the id of the latest job submitted for a run, or None if there is none."""
    lines = read_lines(jobs_file(run), _Job)
    return lines[-1]["job"] if lines else None


def sweep_runs(sweep: Path) -> list[Path]:
    """Return the run folders of a sweep, or [] if the folder is not that of a sweep."""
    try:
        advice = "restore it, or submit the sweep again"
        names = read_json(sweep_file(sweep), dict[str, Any], advice)
    except FileNotFoundError:
        return []
    return [path_below(sweep, name) for name in names]


def newest_step(run: Path) -> int:
    """Return the step of a run's newest complete checkpoint, or 0 if there is none."""
    return max(written_checkpoints(run), default=0)


def record_start(run: Path, job_id: str) -> None:
    """Record in the run folder's starts.jsonl that the job has started.

    The new line contains the step of the newest checkpoint, from which the job resumes.
    """
    facts = {"job": job_id, "step": newest_step(run), "time": round(time.time(), 3)}
    with open(starts_file(run), "a", encoding="utf-8") as stream:
        stream.write(json.dumps(facts) + "\n")


def starts_without_progress(run: Path, job_id: str) -> int:
    """Return how many of a job's latest starts in a row saved no checkpoint."""
    lines = read_lines(starts_file(run), _Start)
    steps = [line["step"] for line in lines if line["job"] == job_id]
    newest = newest_step(run)
    return next((back for back, step in enumerate(reversed(steps)) if step != newest), len(steps))


@dataclass(frozen=True)
class Progress:
    """The progress of a training run.

    `total_images` is None while the length of the run is unknown. `checkpoint_age` is
    the age of the newest checkpoint in seconds, or None without a checkpoint.
    """

    step: int
    images: int
    total_images: int | None
    images_per_second: float | None
    checkpoint_age: float | None
    starts: int
    finished: bool

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end of the run at its latest speed, or None if unknown."""
        if self.finished or not self.images_per_second or self.total_images is None:
            return None
        return max(self.total_images - self.images, 0) / self.images_per_second


def read_progress(run: Path) -> Progress:
    """Read a run's progress from its metrics.jsonl, recipe.json and checkpoints."""
    lines = read_journal(run)
    trained = [line for line in lines if line.get("kind") == "train"]
    last: dict[str, Any] = max(lines, key=lambda line: int(line["step"]), default={})
    return Progress(
        step=int(last.get("step", 0)),
        images=int(last.get("images", 0)),
        total_images=_total_images(run, trained),
        images_per_second=trained[-1].get("images_per_second") if trained else None,
        checkpoint_age=_checkpoint_age(run),
        starts=sum(line.get("kind") == "start" for line in lines),
        finished=bool(lines) and lines[-1].get("kind") == "end",
    )


def _total_images(run: Path, trained: list[dict[str, Any]]) -> int | None:
    """Return a run's length in images, from `images` or `epochs` of its recipe.

    Returns None if the recipe is missing or the size of an epoch is not known yet.
    """
    recipe = read_document(recipe_file(run), _Length)
    if recipe.get("images"):
        return int(recipe["images"])
    if trained and recipe.get("epochs") and trained[-1].get("epoch"):
        return round(recipe["epochs"] * (trained[-1]["images"] / trained[-1]["epoch"]))
    return None


def _checkpoint_age(run: Path) -> float | None:
    times = map(_written_at, written_checkpoints(run).values())
    newest = max((written for written in times if written is not None), default=None)
    return None if newest is None else time.time() - newest


def _written_at(checkpoint: Path) -> float | None:
    """Return when a checkpoint was written; None if the run has just deleted it."""
    try:
        return (checkpoint / MANIFEST).stat().st_mtime
    except FileNotFoundError:
        return None
