"""The names of all files in a run folder, and the exit statuses of training.

RUN/recipe.json                      the resolved recipe
RUN/metrics.jsonl                    the journal (`colortrain.runs.history`)
RUN/evaluation.json                  the scores of the last `colortrain evaluate`
RUN/checkpoints/step-000001000/      one checkpoint (`colortrain.runs.checkpoint`)
RUN/checkpoints/best.json            the step with the best validation score
RUN/samples/step-000001000.png       sample grids of validations
RUN/tensorboard/  RUN/trackers.json  event files; the run's ids in W&B and MLflow
RUN/slurm/                           jobs.jsonl, starts.jsonl, the submitted code
RUN/.lock                            locked by the process that trains
"""

# This module does not import torch: login nodes may not have it installed.
from __future__ import annotations

import os
import re
from pathlib import Path

RECIPE = "recipe.json"  # in a run folder, in each checkpoint, and in an exported folder
MANIFEST = "MANIFEST.json"  # in each checkpoint, written last
TRAINER_STATE = "trainer.json"  # in each checkpoint

# Exit statuses of training, besides 0, 2 (a user's error) and 70 (a bug); see
# `shards.errors`. 75: stopped by a signal, everything is saved, and the same command
# resumes.
EXIT_STOPPED = os.EX_TEMPFAIL
# 69: another process of the run died or hangs.
EXIT_LOST_RANK = os.EX_UNAVAILABLE

_STEP = re.compile(r"step-(\d+)")


def recipe_file(run: Path) -> Path:
    """Return the path RUN/recipe.json: the run's resolved recipe."""
    return run / RECIPE


def journal_file(run: Path) -> Path:
    """Return the path RUN/metrics.jsonl: the run's journal."""
    return run / "metrics.jsonl"


def evaluation_file(run: Path, step: int | None = None) -> Path:
    """Return the path RUN/evaluation.json, or RUN/evaluation-STEP.json for a step."""
    return run / ("evaluation.json" if step is None else f"evaluation-{step}.json")


def checkpoints_folder(run: Path) -> Path:
    """Return the path RUN/checkpoints."""
    return run / "checkpoints"


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return the path of one step's checkpoint folder, whether it exists or not."""
    return checkpoints_folder(run) / f"step-{step:09d}"


def best_file(run: Path) -> Path:
    """Return the path RUN/checkpoints/best.json, which names the best checkpoint."""
    return checkpoints_folder(run) / "best.json"


def samples_folder(run: Path) -> Path:
    """Return the path RUN/samples."""
    return run / "samples"


def sample_file(run: Path, step: int) -> Path:
    """Return the path RUN/samples/step-NNNNNNNNN.png: a step's grid of images."""
    return samples_folder(run) / f"step-{step:09d}.png"


def sample_files(run: Path) -> list[tuple[int, Path]]:
    """Return (step, PNG file) of each sample grid in RUN/samples, by ascending step."""
    paths = samples_folder(run).glob("step-*.png")
    steps = ((step_of(path.with_suffix("")), path) for path in paths)
    return sorted((step, path) for step, path in steps if step is not None)


def tensorboard_folder(run: Path) -> Path:
    """Return the path RUN/tensorboard."""
    return run / "tensorboard"


def trackers_file(run: Path) -> Path:
    """Return the path RUN/trackers.json: the run's ids in W&B and MLflow."""
    return run / "trackers.json"


def lock_file(run: Path) -> Path:
    """Return the path RUN/.lock, which the process that trains keeps locked."""
    return run / ".lock"


def jobs_file(run: Path) -> Path:
    """Return the path RUN/slurm/jobs.jsonl: the SLURM jobs submitted for a run."""
    return run / "slurm" / "jobs.jsonl"


def starts_file(run: Path) -> Path:
    """Return the path RUN/slurm/starts.jsonl: the first step of each SLURM job."""
    return run / "slurm" / "starts.jsonl"


def sweep_file(folder: Path) -> Path:
    """Return the path FOLDER/sweep.json, which lists the runs of a sweep."""
    # maps each run's folder to the recipe fields that the sweep sets for it
    return folder / "sweep.json"


def step_of(path: Path) -> int | None:
    """Return the step in a file name such as step-000001000; None for other names."""
    match = _STEP.fullmatch(path.name)
    return int(match[1]) if match else None


def checkpoint_steps(run: Path) -> list[int]:
    """Return the steps of a run's checkpoint folders, complete or not, ascending."""
    steps = map(step_of, checkpoints_folder(run).glob("step-*"))
    return sorted(step for step in steps if step is not None)


def written_checkpoints(run: Path) -> dict[int, Path]:
    """Return the checkpoint folders that are written completely, by ascending step."""
    folders = {step: checkpoint_folder(run, step) for step in checkpoint_steps(run)}
    # The manifest is written last. Hashes are not verified here: `is_intact` does that.
    return {step: path for step, path in folders.items() if (path / MANIFEST).exists()}
