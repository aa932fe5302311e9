"""The table of runs: its cells, the runs that it lists, and no import of torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shards.errors import UserError
from slurm import queue, runs, status
from slurm.queue import Job
from tests.support.processes import ROOT
from tests.support.run_journal import start_line, train_line, write_journal


def test_spans() -> None:
    assert [status.format_span(seconds) for seconds in (0, 99, 100, 5999, 9000)] == [
        "0 s",
        "99 s",
        "2 min",
        "100 min",
        "2.5 h",
    ]


def test_status_does_not_import_torch() -> None:
    """A login node's Python: any import of torch would fail."""
    modules = "slurm.status, slurm.queue, slurm.devcluster.__main__"
    code = f"import sys; sys.modules['torch'] = None; import {modules}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def make_run(run: Path, job_id: str | None) -> Path:
    (run / "slurm").mkdir(parents=True)
    if job_id:
        runs.record_job(run, job_id, {})
    write_journal(run, start_line(0), train_line(1000), start_line(1000), train_line(1001))
    (run / "recipe.json").write_text('{"images": 5000}')
    return run


def test_rows_of_a_running_run_and_of_a_run_without_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restarts are SLURM's count, or the run's own starts after the first."""
    known = {"7": Job("7", "RUNNING", restarts=3)}
    monkeypatch.setattr(queue, "jobs", lambda ids: {i: known[i] for i in ids})
    folders = [make_run(tmp_path / "a", "7"), make_run(tmp_path / "b", None)]
    running, lone = status.rows(folders)
    images = ["1,001", "4,004 of 5,000", "2.0", "none"]
    assert running[:-1] == [str(folders[0]), "7", "running", *images, "3"]
    assert running[-1].count(":") == 1  # the expected end
    assert lone == [str(folders[1]), "", "no job", *images, "1", ""]


def test_runs_are_found_through_the_comments_of_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comment names a run or a sweep; missing folders are left out."""
    run, sweep = tmp_path / "run", tmp_path / "sweep"
    for folder in (run, sweep / "a=1", sweep / "a=2"):
        folder.mkdir(parents=True)
    (sweep / "sweep.json").write_text('{"a=1": ["a=1"], "a=2": ["a=2"]}')
    comments = [str(sweep), str(run), str(sweep), str(tmp_path / "gone")]
    jobs = [Job("1", "RUNNING", comment=f"{status.COMMENT}{folder}") for folder in comments]
    monkeypatch.setattr(queue, "own_jobs", lambda: [*jobs, Job("2", "RUNNING", comment="other")])
    assert status.known_runs() == [sweep / "a=1", sweep / "a=2", run]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run folder"):
        status.main([str(tmp_path / "none")])
