"""Sweeps: the points of a grid, their arguments, and the table."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from colortrain.runs.history import last_scores
from shards.errors import UserError
from slurm import queue, runs, sweep
from slurm.cluster import Cluster
from slurm.code import CodeSnapshot
from slurm.queue import Job
from tests.support.run_journal import write_journal
from tests.support.slurm_commands import resume_command_of


def test_the_last_grid_varies_fastest() -> None:
    assert sweep.grid_points(["a=1,2", "b.c=x,y"]) == [
        ("a=1", "b.c=x"),
        ("a=1", "b.c=y"),
        ("a=2", "b.c=x"),
        ("a=2", "b.c=y"),
    ]


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        (["a"], "--grid 'a': write it as field=value,value"),
        (["a=1,"], "--grid 'a=1,': write it as field=value,value"),
        (["a=1", "b=1", "a=2"], "--grid: a has two grids, give all its values in one"),
    ],
)
def test_errors_in_grids(grids: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        sweep.grid_points(grids)
    assert message in str(error.value)


@pytest.mark.parametrize("option", [["--processes", "2"], ["--processes=2"], ["--run=other"]])
def test_options_that_the_sweep_sets_are_rejected(option: list[str]) -> None:
    name = option[0].partition("=")[0]
    with pytest.raises(UserError, match=f"^{name} of `colortrain train`: remove it"):
        sweep.training_argv(("n_critic=1",), Path("run"), option)


def test_each_point_sets_its_fields_and_its_run_folder() -> None:
    argv = sweep.training_argv(("a=1", "b=2"), Path("out/run"), ["--recipe", "any"])
    assert argv == ["--recipe", "any", "--set", "a=1", "--set", "b=2", "--run", "out/run"]


def test_the_command_that_resumes_a_sweep_is_not_a_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["--grid", "a=1,2", "--dry-run", "--recipe", "any", "--set", "b=c d"]
    parameters = sweep.job_parameters(Cluster(), CodeSnapshot(tmp_path, "1"), tmp_path, [], argv)
    folder, _, command = resume_command_of(parameters).partition(" && ")
    assert shlex.split(folder) == ["cd", str(tmp_path)]
    argv.remove("--dry-run")
    assert shlex.split(command) == ["colortrain", "sweep", *argv]


def test_scores_that_are_not_numbers_are_left_out(tmp_path: Path) -> None:
    """The journal has null for NaN, which occurs when a run diverges."""
    (tmp_path / "a=1").mkdir()
    metrics = {
        "l1": {"generated": None, "grey": 0.25},
        "psnr": {"generated": 19.5, "grey": 20.0},
        "best": {},
    }
    write_journal(
        tmp_path / "a=1", {"kind": "validation", "step": 5, "images": 20, "metrics": metrics}
    )
    assert last_scores(tmp_path / "a=1") == {"psnr": 19.5, "grey l1": 0.25}
    table = sweep.make_table(tmp_path, {"a=1": ("a=1",)})
    assert [next(iter(column.cells)) for column in table.columns] == [
        "1",
        "no job",
        "5",
        "",
        "19.5",
        "",
        "0.25",
    ]


def test_points_that_have_ended_or_have_a_job_are_not_submitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"1": Job("1", "FAILED"), "2": Job("2", "PENDING")}
    monkeypatch.setattr(queue, "jobs", lambda ids: {i: known[i] for i in ids})
    points: dict[str, sweep.Point] = {
        name: (name,) for name in ("a=new", "a=failed", "a=pending", "a=ended")
    }
    for name in points:
        (tmp_path / name / "slurm").mkdir(parents=True)
    runs.record_job(tmp_path / "a=failed", "1", {})
    runs.record_job(tmp_path / "a=pending", "2", {})
    write_journal(tmp_path / "a=ended", {"kind": "end", "step": 5, "images": 20})
    assert list(sweep.unfinished_points(tmp_path, points)) == ["a=new", "a=failed"]
