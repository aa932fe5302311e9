"""Progress, starts and jobs read from run folders, also after interruptions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.errors import UserError
from slurm import runs
from tests.support.run_journal import start_line, train_line, write_journal


def make_checkpoint(run: Path, step: int) -> None:
    (run / "checkpoints" / f"step-{step:09d}").mkdir(parents=True)
    (run / "checkpoints" / f"step-{step:09d}" / "MANIFEST.json").touch()


def test_starts_that_saved_no_checkpoint_are_counted(tmp_path: Path) -> None:
    """Starts of an earlier job and folders of interrupted saves do not count."""
    (tmp_path / "slurm").mkdir()
    for _ in range(4):
        runs.record_start(tmp_path, "11")
    assert runs.starts_without_progress(tmp_path, "12") == 0
    runs.record_start(tmp_path, "12")
    assert runs.starts_without_progress(tmp_path, "12") == 1
    make_checkpoint(tmp_path, 9)
    (tmp_path / "checkpoints" / "step-000000020.tmp-1").mkdir()  # an interrupted save
    assert runs.starts_without_progress(tmp_path, "12") == 0
    for count in (1, 2, 3):
        runs.record_start(tmp_path, "12")
        assert runs.starts_without_progress(tmp_path, "12") == count
    make_checkpoint(tmp_path, 100)
    assert runs.starts_without_progress(tmp_path, "12") == 0


def test_progress_of_a_running_run(tmp_path: Path) -> None:
    lines = [start_line(0), train_line(5), start_line(5), train_line(10)]
    write_journal(tmp_path, *lines, incomplete='{"kind": "train", "st')
    (tmp_path / "recipe.json").write_text('{"images": 100, "epochs": 3.0}')
    progress = runs.read_progress(tmp_path)
    assert (progress.step, progress.images, progress.total_images) == (10, 40, 100)
    assert (progress.starts, progress.finished) == (2, False)
    assert progress.seconds_left == 30.0
    assert progress.checkpoint_age is None


def test_length_in_epochs_and_the_end(tmp_path: Path) -> None:
    end_line = {"kind": "end", "step": 10, "images": 40}
    write_journal(tmp_path, start_line(0), train_line(10), end_line)
    (tmp_path / "recipe.json").write_text('{"images": null, "epochs": 1.0}')
    progress = runs.read_progress(tmp_path)
    assert (progress.total_images, progress.finished, progress.seconds_left) == (40, True, None)


def test_an_empty_folder_is_a_run_that_has_not_started(tmp_path: Path) -> None:
    assert runs.read_progress(tmp_path).step == 0
    assert runs.latest_job(tmp_path) is None


def test_the_latest_job_is_the_last_that_was_recorded(tmp_path: Path) -> None:
    (tmp_path / "slurm").mkdir()
    runs.record_job(tmp_path, "7", {"code": "1"})
    runs.record_job(tmp_path, "8_1", {"code": "2"})
    assert runs.latest_job(tmp_path) == "8_1"
    first: dict[str, Any] = json.loads(
        (tmp_path / "slurm" / "jobs.jsonl").read_text().splitlines()[0]
    )
    assert (first["job"], first["code"]) == ("7", "1")


def test_only_the_folder_of_a_sweep_has_points(tmp_path: Path) -> None:
    assert runs.sweep_runs(tmp_path) == []
    (tmp_path / "sweep.json").write_text('{"a=1": ["a=1"], "a=2": ["a=2"]}')
    assert runs.sweep_runs(tmp_path) == [tmp_path / "a=1", tmp_path / "a=2"]


@pytest.mark.parametrize("name", ["../other", "/tmp", ""])
def test_runs_of_a_sweep_are_in_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps({"a": [], name: []}))
    with pytest.raises(UserError, match="leads out of it"):
        runs.sweep_runs(tmp_path)
    (tmp_path / "sweep.json").write_text(json.dumps({"a": []}))
    assert runs.sweep_runs(tmp_path) == [tmp_path / "a"]
