"""Submitting a training job: checks on the login node, and the job's parameters."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from colortrain.recipes import get_recipe
from shards.errors import UserError
from slurm import queue, runs, submit
from slurm.cluster import Cluster, Container
from slurm.code import CodeSnapshot
from slurm.queue import Job
from tests.support.slurm_commands import resume_command_of

SITE = ["--cluster", "site.toml", "--run", "run"]


@pytest.mark.parametrize("option", [["--processes", "2"], ["--processes=2"], ["--run=other"]])
def test_options_that_the_job_sets_are_rejected(option: list[str]) -> None:
    name = option[0].partition("=")[0]
    args = submit.make_parser().parse_args([*SITE, "--", *option])
    with pytest.raises(UserError, match=f"^{name} after --: remove it"):
        submit.training_argv(args)


def test_the_help_names_every_field_of_the_site_file() -> None:
    text = submit.make_parser().format_help()
    listed = text.partition("The site file (TOML) has these fields:")[2].partition("example:")[0]
    fields = [field.name for kind in (Cluster, Container) for field in dataclasses.fields(kind)]
    assert [name for name in fields if not re.search(rf"\b{name}\b", listed)] == []


@pytest.mark.parametrize("options", [[], ["--name", "second try", "--follow"]])
def test_the_command_that_resumes_is_the_one_that_submits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """All options are in it, except --dry-run."""
    monkeypatch.chdir(tmp_path)
    argv = [*SITE, *options, "--", "--recipe", "any", "--set", "a=b c"]
    args = submit.make_parser().parse_args([*argv[:4], "--dry-run", *argv[4:]])
    assert submit.training_argv(args) == ["--recipe", "any", "--set", "a=b c", "--run", "run"]
    parameters = submit.job_parameters(
        args, Cluster(), CodeSnapshot(tmp_path, "1"), [*argv[:4], "--dry-run", *argv[4:]]
    )
    assert parameters["job_name"] == (options[1] if options else "run")
    assert parameters["comment"] == f"colortrain:{tmp_path / 'run'}"
    folder, _, command = resume_command_of(parameters).partition(" && ")
    assert shlex.split(folder) == ["cd", str(tmp_path)]
    assert shlex.split(command) == ["colortrain", "submit", *argv]


@pytest.mark.parametrize(
    ("recipe", "processes", "sizes"),
    [
        ("nampouri_unet", 1, []),
        ("nampouri_unet", 2, []),
        ("nampouri_unet", 16, [(16, 1)]),
        ("flagship", 32, []),
    ],
)
def test_a_batch_that_is_spread_thinly_gives_a_warning(
    capsys: pytest.CaptureFixture[str], recipe: str, processes: int, sizes: list[tuple[int, int]]
) -> None:
    """Only networks whose layers use statistics of the batch are changed by it."""
    submit.warn_about_small_batches([get_recipe(recipe)] * 2, Cluster(nodes=processes))
    found = re.findall(r"batch_size=(\d+) on .* sees? (\d+) image", capsys.readouterr().err)
    assert [tuple(map(int, numbers)) for numbers in found] == sizes


def test_a_run_has_one_job_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"7": Job("7", "PENDING", "Priority")}
    monkeypatch.setattr(queue, "jobs", lambda ids: {i: known[i] for i in ids})
    submit.check_idle(tmp_path)
    (tmp_path / "slurm").mkdir()
    runs.record_job(tmp_path, "7", {})
    with pytest.raises(UserError, match=r"^job 7 trains .* already \(pending \(Priority\)\)"):
        submit.check_idle(tmp_path)
    known["7"] = Job("7", "FAILED")
    submit.check_idle(tmp_path)


def test_following_a_job_ends_with_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = iter(["RUNNING", "RUNNING", "FAILED"])
    monkeypatch.setattr(queue, "jobs", lambda ids: {i: Job(i, next(states)) for i in ids})
    monkeypatch.setattr(submit.status, "rows", lambda folders: [["run", "7", "running", "5"]])
    monkeypatch.setattr(submit.time, "sleep", lambda seconds: None)
    assert submit.follow(tmp_path, "7", live=True) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[2] for line in lines[:-1]] == ["running, 5"]  # only on a change
    assert lines[-1] == "job 7 failed"
