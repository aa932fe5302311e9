"""Resume runs in web trackers: RUN/trackers.json stores W&B's and MLflow's run ids."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from colortrain.runs.history import read_document
from colortrain.runs.layout import trackers_file
from shards.files import write_atomic


def saved_run_ids(run: Path) -> dict[str, str]:
    """Return the run's id in each tracker, as saved in RUN/trackers.json."""
    return read_document(trackers_file(run), dict[str, str])


def tracker_kwargs(run: Path, step: int) -> dict[str, dict[str, Any]]:
    """Return the `init_kwargs` for `Accelerator.init_trackers`, by tracker."""
    # with these a run that resumes continues as the same run in each tracker
    ids = saved_run_ids(run)
    mlflow = {"run_id": ids["mlflow"]} if "mlflow" in ids else {"run_name": run.name}
    wandb = {
        "id": ids.get("wandb", secrets.token_hex(4)),
        "resume": "allow",
        "name": run.name,
        "dir": str(run),
    }
    # Of steps that a resumed run repeats, TensorBoard drops the old values, W&B keeps
    # the first value and MLflow keeps both.
    return {"tensorboard": {"purge_step": step + 1}, "wandb": wandb, "mlflow": mlflow}


def save_run_ids(run: Path, trackers: Iterable[Any]) -> None:
    """Save the ids that the trackers have assigned to this run in RUN/trackers.json."""
    ids = {
        tracker.name: _run_id(tracker)
        for tracker in trackers
        if tracker.name in ("wandb", "mlflow")
    }
    if ids and saved_run_ids(run) != ids:
        write_atomic(trackers_file(run), json.dumps(ids, indent=1).encode() + b"\n")


def _run_id(tracker: Any) -> str:
    return str(tracker.run.id if tracker.name == "wandb" else tracker.active_run.info.run_id)


def log_image(trackers: Iterable[Any], name: str, image: np.ndarray, path: Path, step: int) -> None:
    """Log an image, (H, W, 3) uint8 sRGB, to every tracker that supports images.

    `path` is a PNG file of the same image; `name` is the image's name in the trackers.
    """
    for tracker in trackers:
        if tracker.name == "tensorboard":
            tracker.writer.add_image(name, image, step, dataformats="HWC")
        elif tracker.name == "wandb":
            tracker.log_images({name: [image]}, step=step)
        elif tracker.name == "mlflow":
            tracker.log_artifact(str(path), name)
