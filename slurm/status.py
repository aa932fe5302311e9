"""Show the state of runs on the cluster: job, step, speed, checkpoint, restarts, end.

    colortrain status runs/first runs/second

This command does not import torch.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from launch.cli import CommandParser
from shards.errors import UserError, run_command
from slurm import queue, runs

COMMENT = "colortrain:"  # prefix of the run folder in a job's comment
_COLUMNS = ("run", "job", "state", "step", "images", "images/s", "checkpoint", "restarts", "ends")
_EXAMPLE = """\
Without RUN, all your runs whose jobs SLURM still lists are shown.

example:
  colortrain status runs/first
"""


def rows(folders: Sequence[Path]) -> list[list[str]]:
    """Return the rows of the status table: for each run, the texts of its cells."""
    job_ids = {run: runs.latest_job(run) for run in folders}
    known = queue.jobs(job_id for job_id in job_ids.values() if job_id)
    return [_row(run, known.get(job_ids[run] or "")) for run in folders]


def _row(run: Path, job: queue.Job | None) -> list[str]:
    progress = runs.read_progress(run)
    restarts = job.restarts if job and job.restarts is not None else max(progress.starts - 1, 0)
    running = job is not None and job.state == "RUNNING"
    total, speed, age = (
        progress.total_images,
        progress.images_per_second,
        progress.checkpoint_age,
    )
    return [
        str(run),
        job.job_id if job else "",
        job.description if job else "no job",
        f"{progress.step:,}",
        f"{progress.images:,}" + (f" of {total:,}" if total else ""),
        f"{speed:.1f}" if speed else "",
        f"{format_span(age)} ago" if age is not None else "none",
        str(restarts),
        "ended" if progress.finished else _end_time(progress.seconds_left) if running else "",
    ]


def _end_time(seconds_left: float | None) -> str:
    if seconds_left is None:
        return ""
    return time.strftime("%a %H:%M", time.localtime(time.time() + seconds_left))


def format_span(seconds: float) -> str:
    """Format a time span in seconds, minutes or hours: "45 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def make_table(folders: Sequence[Path]) -> Table:
    """Return the status table of these runs, ready to be printed."""
    table = Table(box=box.SIMPLE)
    for name in _COLUMNS:
        table.add_column(
            name, justify="left" if name in ("run", "state") else "right", overflow="fold"
        )
    for row in rows(folders):
        table.add_row(*row)
    return table


def known_runs() -> list[Path]:
    """Return the run folders of all jobs of this user that SLURM still lists.

    The folders are read from the comments of the jobs. A comment names one run folder,
    or the folder of a sweep. Folders that do not exist are left out.
    """
    named = [
        Path(job.comment.removeprefix(COMMENT))
        for job in queue.own_jobs()
        if job.comment.startswith(COMMENT)
    ]
    folders = [
        run for folder in dict.fromkeys(named) for run in runs.sweep_runs(folder) or [folder]
    ]
    return [run for run in folders if run.is_dir()]


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of `colortrain status`."""
    parser = CommandParser("slurm.status", "Show the state of runs on the cluster.", _EXAMPLE)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run folders")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the status table of the requested runs and return the exit status.

    Raises UserError if a run folder does not exist.
    """
    folders = make_parser().parse_args(argv).runs or known_runs()
    for run in folders:
        if not run.is_dir():
            raise UserError(f"there is no run folder {run}: check the path")
    if not folders:
        print("SLURM lists no training jobs of yours")
        return 0
    width = None if sys.stdout.isatty() else 160
    Console(width=width).print(make_table(folders))
    return 0


if __name__ == "__main__":
    sys.exit(run_command("slurm.status", main))
