"""Submitting a training job: checks on the login node, and the job's parameters."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from shards.errors import UserError
from slurm import queue, runs, submit
from slurm.cluster import Cluster, Container
from slurm.code import CodeSnapshot
from slurm.queue import Job

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


def test_the_command_that_resumes_is_the_one_that_submits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = submit.make_parser().parse_args([*SITE, "--", "--recipe", "any", "--set", "a=b c"])
    argv = submit.training_argv(args)
    assert argv == ["--recipe", "any", "--set", "a=b c", "--run", "run"]
    parameters = submit.job_parameters(args, Cluster(), CodeSnapshot(tmp_path, "1"), argv)
    assert parameters["job_name"] == "run"
    assert parameters["comment"] == f"colortrain:{tmp_path / 'run'}"
    command = f"cd {tmp_path} && colortrain submit {' '.join(SITE)} -- --recipe any --set 'a=b c'"
    assert command.replace("'", "'\"'\"'") in parameters["teardown"][-1]  # type: ignore[index]


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
