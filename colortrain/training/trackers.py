"""Going on in the same run of a tracker on the web: what W&B and MLflow call it is kept in RUN/trackers.json."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from colortrain.runs.layout import trackers_file
from shards.files import write_atomic


def known_names(run: Path) -> dict[str, str]:
    """Tracker -> what it calls this run; empty before the first start."""
    try:
        found = json.loads(trackers_file(run).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def start_words(run: Path, step: int) -> dict[str, dict[str, Any]]:
    """The arguments that accelerate gives each tracker, so that a resumed run stays one run there too."""
    known = known_names(run)
    mlflow = {"run_id": known["mlflow"]} if "mlflow" in known else {"run_name": run.name}
    wandb = {
        "id": known.get("wandb", secrets.token_hex(4)),
        "resume": "allow",
        "name": run.name,
        "dir": str(run),
    }
    # TensorBoard forgets steps that a resumed run repeats; W&B keeps the first value of each, MLflow both
    return {"tensorboard": {"purge_step": step + 1}, "wandb": wandb, "mlflow": mlflow}


def remember(run: Path, trackers: Iterable[Any]) -> None:
    """Keep the names that trackers gave this run."""
    names = {
        tracker.name: _name_of(tracker)
        for tracker in trackers
        if tracker.name in ("wandb", "mlflow")
    }
    if names and known_names(run) != names:
        write_atomic(trackers_file(run), json.dumps(names, indent=1).encode() + b"\n")


def _name_of(tracker: Any) -> str:
    return str(tracker.run.id if tracker.name == "wandb" else tracker.active_run.info.run_id)


def show(trackers: Iterable[Any], name: str, picture: Any, path: Path, step: int) -> None:
    """A picture (H, W, 3) uint8, which lies at `path` too, to the trackers that take pictures."""
    for tracker in trackers:
        if tracker.name == "tensorboard":
            tracker.writer.add_image(name, picture, step, dataformats="HWC")
        elif tracker.name == "wandb":
            tracker.log_images({name: [picture]}, step=step)
        elif tracker.name == "mlflow":
            tracker.log_artifact(str(path), name)
