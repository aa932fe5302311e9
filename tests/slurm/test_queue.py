"""The state of jobs, from stubs of squeue and sacct."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from shards.errors import UserError
from slurm import queue
from slurm.queue import Job
from tests.support.slurm_commands import install_commands

SQUEUE = """\
cat <<'END'
7|RUNNING|None|2|colortrain:/shared/a|b
8_0|PENDING|Priority|0|
END"""
SACCT = """\
cat <<'END'
JobID|State|NodeList
9|CANCELLED by 1000|node1
9.0|FAILED|node1
END"""


def test_jobs_come_from_squeue_then_from_sacct(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_commands(tmp_path, monkeypatch, {"squeue": SQUEUE, "sacct": SACCT})
    assert queue.jobs(["7", "8_0", "9", "10"]) == {
        "7": Job("7", "RUNNING", "None", 2, "colortrain:/shared/a|b"),
        "8_0": Job("8_0", "PENDING", "Priority", 0, ""),
        "9": Job("9", "CANCELLED"),
        "10": Job("10", "GONE"),
    }
    assert queue.jobs([]) == {}


def test_a_description_says_why_a_pending_job_waits() -> None:
    jobs = [Job("1", "PENDING", "Priority"), Job("1", "PENDING", "None"), Job("1", "RUNNING", "x")]
    assert [job.description for job in jobs] == ["pending (Priority)", "pending", "running"]


@pytest.mark.parametrize(
    ("state", "finished"),
    [("PENDING", False), ("COMPLETING", False), ("COMPLETED", True), ("GONE", True)],
)
def test_finished_states(state: str, finished: bool) -> None:
    assert Job("1", state).finished == finished


def test_waiting_ends_with_the_last_job(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([("RUNNING", "PENDING"), ("FAILED", "RUNNING"), ("FAILED", "COMPLETED")])
    slept: list[float] = []
    monkeypatch.setattr(
        queue, "jobs", lambda ids: {i: Job(i, s) for i, s in zip(ids, next(states), strict=True)}
    )
    monkeypatch.setattr(time, "sleep", slept.append)
    assert queue.wait(["1", "2"], 3.0) == {"1": Job("1", "FAILED"), "2": Job("2", "COMPLETED")}
    assert slept == [3.0, 3.0]


def test_a_controller_that_does_not_respond_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_commands(tmp_path, monkeypatch, {"squeue": "exit 1"})
    with pytest.raises(UserError, match=r"controller does not respond \(squeue failed\)"):
        queue.own_jobs()
