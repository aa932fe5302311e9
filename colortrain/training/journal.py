"""Log a run: lines in RUN/metrics.jsonl, accelerate's trackers, sample images.

Only rank 0 writes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from colortrain.recipe import RESUMABLE_FIELDS, Recipe
from colortrain.runs.layout import journal_file, sample_file
from colortrain.serialize import finite, to_plain
from colortrain.training.alarms import Alarms
from colortrain.training.trackers import log_image, save_run_ids, tracker_kwargs
from colortrain.visualize import save_png
from shards.files import write_atomic


class Journal:
    """Writes RUN/metrics.jsonl, the trackers and RUN/samples/step-NNNNNNNNN.png."""

    def __init__(self, run: Path, accelerator: Accelerator) -> None:
        self.run, self.accelerator = run, accelerator
        self.path = journal_file(run)
        self.writes = accelerator.is_main_process
        self.alarms: Alarms | None = None

    def start(self, recipe: Recipe, step: int) -> None:
        """Open the trackers; delete lines after `step`, which will be written again."""
        config = {
            name: value
            for name, value in _flatten(to_plain(recipe)).items()
            if step == 0 or name not in RESUMABLE_FIELDS
        }
        self.accelerator.init_trackers(
            "colortrain", config=config, init_kwargs=tracker_kwargs(self.run, step)
        )
        self.alarms = Alarms(recipe.objective)
        if not self.writes:
            return
        save_run_ids(self.run, self.accelerator.trackers)
        if self.path.exists():
            lines = [
                line
                for line in self.path.read_text().splitlines(keepends=True)
                if _step(line) <= step
            ]
            write_atomic(self.path, "".join(lines).encode())
            for line in map(json.loads, lines):
                self.alarms.update(line.get("kind", ""), line)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl and log its numbers to the trackers.

        `kind` is "train", "validation", "start", ...; only the first two are logged to
        the trackers. Warnings that the line causes are printed, and written as lines of
        kind "warning".
        """
        if not self.writes:
            return
        line = json.dumps(
            finite({"kind": kind, "step": step, "time": round(time.time(), 3), **values})
        )
        with open(self.path, "a") as stream:
            stream.write(line + "\n")
        for about, text in self.alarms.update(kind, values).items() if self.alarms else ():
            print(f"warning: step {step:,}: {text}", file=sys.stderr, flush=True)
            self.write("warning", step, {"about": about, "text": text})
        if kind in ("train", "validation"):
            self.accelerator.log(
                {f"{kind}/{name}": number for name, number in _numbers(values).items()}, step=step
            )

    def log_image(self, name: str, step: int, image: np.ndarray) -> None:
        """Save an image, (H, W, 3) uint8 sRGB, in RUN/samples and in the trackers."""
        if not self.writes:
            return
        path = sample_file(self.run, step)
        save_png(image, path)
        log_image(self.accelerator.trackers, name, image, path, step)

    def close(self) -> None:
        """Close the trackers."""
        self.accelerator.end_training()


def _step(line: str) -> float:
    """Return the step of a line, infinity if a killed run left it incomplete."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _numbers(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Return all numbers of nested dicts by path, for instance "losses/l1"."""
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            flat[prefix + name] = value
    return flat


def _flatten(plain: Any, prefix: str = "") -> dict[str, Any]:
    """Return a recipe's plain form as a flat dict of scalars, for trackers."""
    if isinstance(plain, dict):
        return {
            path: value
            for name, item in plain.items()
            for path, value in _flatten(item, f"{prefix}{name}.").items()
        }
    value = plain if isinstance(plain, int | float | str | bool) else json.dumps(plain)
    return {prefix.rstrip("."): value}
