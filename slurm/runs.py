"""What a run folder says of itself, read without torch: login nodes have none."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_JOBS, _STARTS = "slurm/jobs.jsonl", "slurm/starts.jsonl"
SWEEP = "sweep.json"  # of a sweep's folder: run folder -> what was set


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON objects; half a line at the end of a running one is left out."""
    found = []
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in found if isinstance(line, dict)]


def record_job(run: Path, job: str, facts: Mapping[str, Any]) -> None:
    """Note in the run folder that a job was submitted for it."""
    with open(run / _JOBS, "a") as stream:
        stream.write(json.dumps({"job": job, "submitted": round(time.time(), 3), **facts}) + "\n")


def job_of(run: Path) -> str | None:
    """The number of the newest job submitted for a run, None where there was none."""
    lines = _lines(run / _JOBS)
    return str(lines[-1]["job"]) if lines else None


def points(sweep: Path) -> list[Path]:
    """The run folders of a sweep's folder; none for any other folder."""
    try:
        return [sweep / name for name in json.loads((sweep / SWEEP).read_text())]
    except FileNotFoundError:
        return []


def last_scores(run: Path) -> dict[str, float]:
    """What the last validation measured of the generated pictures, and of grey ones as "grey l1"; no NaN (null)."""
    found = [
        line["metrics"]
        for line in _lines(run / "metrics.jsonl")
        if line.get("kind") == "validation"
    ]
    if not found:
        return {}
    scores = {
        name: values["generated"]
        for name, values in found[-1].items()
        if values.get("generated") is not None
    }
    grey = found[-1].get("l1", {}).get("grey")
    return scores if grey is None else {**scores, "grey l1": grey}


def newest_step(run: Path) -> int:
    """The step of the newest finished checkpoint, 0 where there is none."""
    names = [
        path.parent.name.removeprefix("step-")
        for path in (run / "checkpoints").glob("step-*/MANIFEST.json")
    ]
    return max((int(name) for name in names if name.isdigit()), default=0)


def note_start(run: Path, job: str) -> None:
    """Note from which step a job starts."""
    with open(run / _STARTS, "a") as stream:
        stream.write(
            json.dumps({"job": job, "step": newest_step(run), "time": round(time.time(), 3)}) + "\n"
        )


def fruitless_starts(run: Path, job: str) -> int:
    """How many starts of a job in a row, the last one included, have saved no step."""
    steps = [int(line["step"]) for line in _lines(run / _STARTS) if line["job"] == job]
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
    lines = _lines(run / "metrics.jsonl")
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
        recipe = json.loads((run / "recipe.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    if recipe.get("images"):
        return int(recipe["images"])
    if trained and recipe.get("epochs") and trained[-1]["epoch"]:
        return round(recipe["epochs"] * trained[-1]["images"] / trained[-1]["epoch"])
    return None


def _checkpoint_age(run: Path) -> float | None:
    times = [path.stat().st_mtime for path in (run / "checkpoints").glob("step-*/MANIFEST.json")]
    return time.time() - max(times) if times else None
