"""What a run writes down for people: metrics.jsonl, trackers, sample grids. Rank 0 writes, the others keep silent."""

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
from colortrain.training.trackers import remember, show, start_words
from colortrain.visualize import save_png
from shards.files import write_atomic


class Journal:
    """Appends to RUN/metrics.jsonl and to accelerate's trackers, and draws RUN/samples/step-NNNNNNNNN.png."""

    def __init__(self, run: Path, accelerator: Accelerator) -> None:
        self.run, self.accelerator = run, accelerator
        self.path = journal_file(run)
        self.writes = accelerator.is_main_process
        self.alarms: Alarms | None = None

    def begin(self, recipe: Recipe, step: int) -> None:
        """Open the trackers, and forget lines beyond `step`: a resumed run writes them again."""
        config = {
            name: value
            for name, value in _flat(to_plain(recipe)).items()
            if step == 0 or name not in RESUMABLE_FIELDS
        }
        self.accelerator.init_trackers(
            "colortrain", config=config, init_kwargs=start_words(self.run, step)
        )
        self.alarms = Alarms(recipe.objective)
        if not self.writes:
            return
        remember(self.run, self.accelerator.trackers)
        if self.path.exists():
            lines = [
                line
                for line in self.path.read_text().splitlines(keepends=True)
                if _step(line) <= step
            ]
            write_atomic(self.path, "".join(lines).encode())
            for line in map(json.loads, lines):
                self.alarms.see(line.get("kind", ""), line)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """One line of metrics.jsonl ("train", "validation", "start", ...), and its numbers to the trackers."""
        if not self.writes:
            return
        line = json.dumps(
            finite({"kind": kind, "step": step, "time": round(time.time(), 3), **values})
        )
        with open(self.path, "a") as stream:
            stream.write(line + "\n")
        for about, text in self.alarms.see(kind, values).items() if self.alarms else ():
            print(f"warning: step {step:,}: {text}", file=sys.stderr, flush=True)
            self.write("warning", step, {"about": about, "text": text})
        if kind in ("train", "validation"):
            self.accelerator.log(
                {f"{kind}/{name}": number for name, number in _numbers(values).items()}, step=step
            )

    def picture(self, name: str, step: int, picture: np.ndarray) -> None:
        """Save a picture (H, W, 3) uint8 under RUN/samples and show it to TensorBoard."""
        if not self.writes:
            return
        path = sample_file(self.run, step)
        save_png(picture, path)
        show(self.accelerator.trackers, name, picture, path, step)

    def end(self) -> None:
        """Close the trackers."""
        self.accelerator.end_training()


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the half line of a killed run
        return float("inf")


def _numbers(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            flat[prefix + name] = value
    return flat


def _flat(plain: Any, prefix: str = "") -> dict[str, Any]:
    """A nested recipe as one level of plain values, the form every tracker takes."""
    if isinstance(plain, dict):
        return {
            k: v for name, item in plain.items() for k, v in _flat(item, f"{prefix}{name}.").items()
        }
    value = plain if isinstance(plain, int | float | str | bool) else json.dumps(plain)
    return {prefix.rstrip("."): value}
