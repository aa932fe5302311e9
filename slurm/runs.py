"""What a run folder says of itself, read without torch: login nodes have none."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colortrain.runs.history import read_journal, read_lines
from colortrain.runs.layout import (
    MANIFEST,
    jobs_file,
    recipe_file,
    starts_file,
    sweep_file,
    written_checkpoints,
)


def record_job(run: Path, job: str, facts: Mapping[str, Any]) -> None:
    """Note in the run folder that a job was submitted for it."""
    with open(jobs_file(run), "a") as stream:
        stream.write(json.dumps({"job": job, "submitted": round(time.time(), 3), **facts}) + "\n")


def job_of(run: Path) -> str | None:
    """The number of the newest job submitted for a run, None where there was none."""
    lines = read_lines(jobs_file(run))
    return str(lines[-1]["job"]) if lines else None


def points(sweep: Path) -> list[Path]:
    """The run folders of a sweep's folder; none for any other folder."""
    try:
        return [sweep / name for name in json.loads(sweep_file(sweep).read_text())]
    except FileNotFoundError:
        return []


def newest_step(run: Path) -> int:
    """The step of the newest finished checkpoint, 0 where there is none."""
    return max(written_checkpoints(run), default=0)


def note_start(run: Path, job: str) -> None:
    """Note from which step a job starts."""
    with open(starts_file(run), "a") as stream:
        stream.write(
            json.dumps({"job": job, "step": newest_step(run), "time": round(time.time(), 3)}) + "\n"
        )


def fruitless_starts(run: Path, job: str) -> int:
    """How many starts of a job in a row, the last one included, have saved no step."""
    steps = [int(line["step"]) for line in read_lines(starts_file(run)) if line["job"] == job]
    newest = newest_step(run)
    return next((back for back, step in enumerate(reversed(steps)) if step != newest), len(steps))


@dataclass(frozen=True)
class Progress:
    """How far a run is. `images` is None before the length is known, `left` seconds, `saved` seconds ago."""

    step: int
    seen: int
    images: int | None
    rate: float | None
    saved: float | None
    starts: int
    ended: bool

    @property
    def left(self) -> float | None:
        """Seconds to its end at the rate of the last lines."""
        if self.ended or not self.rate or self.images is None:
            return None
        return max(self.images - self.seen, 0) / self.rate


def progress(run: Path) -> Progress:
    """How far a run is, from its metrics.jsonl, recipe.json and checkpoints."""
    lines = read_journal(run)
    trained = [line for line in lines if line.get("kind") == "train"]
    last: dict[str, Any] = max(lines, key=lambda line: int(line["step"]), default={})
    return Progress(
        step=int(last.get("step", 0)),
        seen=int(last.get("images", 0)),
        images=_length(run, trained),
        rate=float(trained[-1]["images_per_second"]) if trained else None,
        saved=_checkpoint_age(run),
        starts=sum(line.get("kind") == "start" for line in lines),
        ended=bool(lines) and lines[-1].get("kind") == "end",
    )


def _length(run: Path, trained: list[dict[str, Any]]) -> int | None:
    """Images in all: of the recipe, or its epochs times the images of one."""
    try:
        recipe = json.loads(recipe_file(run).read_text())
    except (FileNotFoundError, ValueError):
        return None
    if recipe.get("images"):
        return int(recipe["images"])
    if trained and recipe.get("epochs") and trained[-1]["epoch"]:
        return round(recipe["epochs"] * trained[-1]["images"] / trained[-1]["epoch"])
    return None


def _checkpoint_age(run: Path) -> float | None:
    times = [(folder / MANIFEST).stat().st_mtime for folder in written_checkpoints(run).values()]
    return time.time() - max(times) if times else None
