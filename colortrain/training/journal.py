"""Record a run: lines in RUN/metrics.jsonl, accelerate's trackers, sample images."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from colortrain.recipe import RESUMABLE_FIELDS, Recipe
from colortrain.runs.history import Line, parse_journal_line
from colortrain.runs.layout import journal_file, sample_file
from colortrain.serialize import finite, to_plain
from colortrain.training.alarms import Alarms
from colortrain.training.trackers import log_image, save_run_ids, tracker_kwargs
from colortrain.visualize import save_png
from shards.files import write_atomic


class Journal:
    """Writes what happens in a run to metrics.jsonl, to the trackers and as images.

    Only rank 0 writes.
    """

    def __init__(self, run: Path, accelerator: Accelerator) -> None:
        self.run, self.accelerator = run, accelerator
        self.path = journal_file(run)
        self.writes = accelerator.is_main_process
        self.alarms: Alarms | None = None

    def start(self, recipe: Recipe, step: int, *, validation_due: bool = False) -> None:
        """Open the trackers and metrics.jsonl as a run starts or resumes at `step`.

        `validation_due` says that the run will validate at `step` first.
        """
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
            kept = lines_to_keep(self.path.read_bytes(), step, validation_due)
            for _, line in kept:
                self.alarms.update(line["kind"], line)
            write_atomic(self.path, b"".join(data for data, _ in kept))

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl, and check it for signs of a failing run.

        `kind` is "train", "validation", "start", ...; `values` are the line's other
        values.
        """
        if not self.writes:
            return
        line = json.dumps(
            finite({"kind": kind, "step": step, "time": round(time.time(), 3), **values})
        )
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        for about, text in self.alarms.update(kind, values).items() if self.alarms else ():
            print(f"warning: step {step:,}: {text}", file=sys.stderr, flush=True)
            self.write("warning", step, {"about": about, "text": text})
        if kind in ("train", "validation"):
            self.accelerator.log(
                {f"{kind}/{name}": number for name, number in _numbers(values).items()}, step=step
            )

    def log_image(self, name: str, step: int, image: np.ndarray) -> None:
        """Save an image, (H, W, 3) uint8 sRGB, in RUN/samples; log it to the trackers.

        `name` is the image's name in the trackers.
        """
        if not self.writes:
            return
        path = sample_file(self.run, step)
        save_png(image, path)
        log_image(self.accelerator.trackers, name, image, path, step)

    def close(self) -> None:
        """Close the trackers."""
        self.accelerator.end_training()


_OF_VALIDATION = ("validation", "warning")


def lines_to_keep(journal: bytes, step: int, validation_due: bool) -> list[tuple[bytes, Line]]:
    """Return the lines, raw and parsed, that a run keeps when it resumes at `step`.

    `validation_due` says that it will validate at `step` first.
    """
    # not the lines of what the run repeats and logs again
    kept, validated = [], False
    for data in journal.splitlines(keepends=True):
        line = parse_journal_line(data)  # None: a killed run left it incomplete
        if line is None or line["step"] > step:
            continue
        if validation_due and line["step"] == step:
            validated |= line["kind"] == "validation"
            # the checkpoint is replaced; a warning after the scores is about them
            if line["kind"] == "checkpoint" or (validated and line["kind"] in _OF_VALIDATION):
                continue
        kept.append((data, line))
    return kept


def _numbers(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Return all numbers in nested dicts as one dict, with keys such as "losses/l1"."""
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            flat[prefix + name] = value
    return flat


def _flatten(plain: Any, prefix: str = "") -> dict[str, Any]:
    """Return a recipe as a flat dict of scalars, with keys such as "critic_adam.lr"."""
    if isinstance(plain, dict):
        return {
            path: value
            for name, item in plain.items()
            for path, value in _flatten(item, f"{prefix}{name}.").items()
        }
    value = plain if isinstance(plain, int | float | str | bool) else json.dumps(plain)
    return {prefix.rstrip("."): value}
