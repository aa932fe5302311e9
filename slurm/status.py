"""How runs on the cluster stand: queue, step, speed, last checkpoint, restarts, expected end. Needs no torch.

python -m slurm.status runs/first runs/second
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

COMMENT = "colortrain:"  # in a job's comment, before its run folder
_COLUMNS = ("run", "job", "state", "step", "images", "images/s", "checkpoint", "restarts", "ends")
_EXAMPLE = """\
Without RUN: every run of yours that SLURM still knows a job of. example:
  python -m slurm.status runs/first
"""


def rows(folders: Sequence[Path]) -> list[list[str]]:
    """The table's cells, a row for each run."""
    numbers = {run: runs.job_of(run) for run in folders}
    known = queue.jobs(number for number in numbers.values() if number)
    return [_row(run, known.get(numbers[run] or "")) for run in folders]


def _row(run: Path, job: queue.Job | None) -> list[str]:
    done = runs.progress(run)
    restarts = job.restarts if job and job.restarts is not None else max(done.starts - 1, 0)
    running = job is not None and job.state == "RUNNING"
    return [
        str(run),
        job.number if job else "",
        job.shown if job else "no job",
        f"{done.step:,}",
        f"{done.seen:,}" + (f" of {done.images:,}" if done.images else ""),
        f"{done.rate:.1f}" if done.rate else "",
        f"{span(done.saved)} ago" if done.saved is not None else "none",
        str(restarts),
        "ended" if done.ended else _end(done.left) if running else "",
    ]


def _end(left: float | None) -> str:
    return time.strftime("%a %H:%M", time.localtime(time.time() + left)) if left is not None else ""


def span(seconds: float) -> str:
    """A time span in its largest unit: "45 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def table(folders: Sequence[Path]) -> Table:
    """All of it, for people."""
    shown = Table(box=box.SIMPLE)
    for name in _COLUMNS:
        shown.add_column(
            name, justify="left" if name in ("run", "state") else "right", overflow="fold"
        )
    for row in rows(folders):
        shown.add_row(*row)
    return shown


def known_runs() -> list[Path]:
    """Run folders of this user's jobs, from the jobs' comments: a run folder, or that of a sweep."""
    named = [
        Path(job.comment.removeprefix(COMMENT))
        for job in queue.mine()
        if job.comment.startswith(COMMENT)
    ]
    found = [run for folder in dict.fromkeys(named) for run in runs.points(folder) or [folder]]
    return [run for run in found if run.is_dir()]


def parser() -> argparse.ArgumentParser:
    """The words this door understands."""
    words = CommandParser("slurm.status", "How runs on the cluster stand.", _EXAMPLE)
    words.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run folders")
    return words


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit status."""
    folders = parser().parse_args(argv).runs or known_runs()
    for run in folders:
        if not run.is_dir():
            raise UserError(f"no run folder {run}")
    if not folders:
        print("SLURM knows no job of yours that trains a run")
        return 0
    wide = None if sys.stdout.isatty() else 160
    Console(width=wide).print(table(folders))
    return 0


if __name__ == "__main__":
    sys.exit(run_command("slurm.status", main))
