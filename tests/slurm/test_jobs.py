"""The callables inside a job: requeues, the check of the code, the lock of a run."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from colortrain.runs import run_lock
from colortrain.runs.layout import EXIT_STOPPED, lock_file
from shards.errors import UserError
from shards.locks import lock
from slurm import jobs, runs
from slurm.code import ROOT, CodeSnapshot
from tests.support.requeue_cases import CASES
from tests.support.slurm_commands import install_commands


@pytest.fixture(autouse=True)
def exits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `exit_process` raise SystemExit instead of ending the test process."""

    def exit_process(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(jobs, "exit_process", exit_process)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("RANK", "0")


def context(folder: Path, digest: str = "1") -> jobs.JobContext:
    return jobs.JobContext(folder, CodeSnapshot(folder, digest))


@pytest.mark.parametrize(
    ("letters", "max_restarts", "decisions"),
    [case for case in CASES if "f" not in case[0].lower()],
)
def test_processes_decide_like_the_batch_scripts(
    tmp_path: Path, letters: str, max_restarts: int, decisions: str
) -> None:
    (tmp_path / "slurm").mkdir()
    training = jobs.TrainingJob((), tmp_path, context(tmp_path), max_restarts)
    for number, (letter, requeued) in enumerate(zip(letters, decisions, strict=True), 1):
        runs.record_start(tmp_path, "7")
        if letter.isupper():
            (tmp_path / f"checkpoints/step-{number:09d}").mkdir(parents=True)
            (tmp_path / f"checkpoints/step-{number:09d}/MANIFEST.json").touch()
        if requeued == "y":
            assert training.checkpoint().function is training
        else:
            with pytest.raises(SystemExit, match=str(jobs.EXIT_NO_REQUEUE)):
                training.checkpoint()


@pytest.mark.parametrize(
    ("state", "rank", "requeued"), [("RUNNING", 0, 1), ("RUNNING", 1, 0), ("COMPLETING", 0, 0)]
)
def test_rank_0_requeues_a_running_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, rank: int, requeued: int
) -> None:
    """A job that was cancelled is COMPLETING: it must not start again."""
    install_commands(tmp_path, monkeypatch, {"squeue": f"echo {state}"})
    monkeypatch.setattr(jobs.submitit, "JobEnvironment", lambda: SimpleNamespace(job_id="7"))
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setenv("RANK", str(rank))
    calls: list[int] = []
    with pytest.raises(SystemExit, match="0"):
        jobs.requeue_job(lambda number, frame: calls.append(number))
    assert calls == [signal.SIGUSR2] * requeued


def test_without_squeue_the_batch_script_requeues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may lack SLURM's commands."""
    monkeypatch.setattr(jobs.submitit, "JobEnvironment", lambda: SimpleNamespace(job_id="7"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=str(EXIT_STOPPED)):
        jobs.requeue_job(lambda number, frame: None)


def test_a_job_starts_in_its_folder_with_its_scratch_as_tmpdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = tmp_path / "result.pkl"
    result.touch()
    paths = SimpleNamespace(result_pickle=result)
    monkeypatch.setattr(jobs.submitit, "JobEnvironment", lambda: SimpleNamespace(paths=paths))
    monkeypatch.setenv("USER_FOLDER", str(tmp_path / "scratch"))
    monkeypatch.setenv("TMPDIR", "elsewhere")
    monkeypatch.chdir(ROOT)
    code = CodeSnapshot(ROOT, "1")
    jobs.JobContext(tmp_path, code, "$USER_FOLDER/job").prepare()
    assert Path.cwd() == tmp_path
    assert os.environ["TMPDIR"] == str(tmp_path / "scratch" / "job")
    assert (tmp_path / "scratch" / "job").is_dir()
    assert not result.exists()


def test_a_job_with_other_code_ends_without_a_requeue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=str(jobs.EXIT_NO_REQUEUE)):
        context(tmp_path).prepare()
    assert f"but the job was submitted with {tmp_path}" in capsys.readouterr().err


def test_a_start_waits_while_an_earlier_one_holds_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    holder, waits = lock(lock_file(tmp_path), ""), 0

    def sleep(seconds: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 3:
            holder.close()

    monkeypatch.setattr(jobs.time, "sleep", sleep)
    jobs.wait_for_earlier_start(tmp_path)
    assert waits == 3
    assert capsys.readouterr().err.count("a process of an earlier start still holds") == 1


def test_a_lock_without_a_sign_of_life_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the lock that NFS keeps for a node that was lost; it used to end the job."""
    clock = SimpleNamespace(now=0.0)
    module = SimpleNamespace(monotonic=lambda: clock.now, sleep=lambda _: advance())

    def advance() -> None:
        clock.now += 1

    monkeypatch.setattr(jobs, "time", module)
    monkeypatch.setattr(run_lock, "time", module)
    with lock(lock_file(tmp_path), ""):  # by a process that does not update the file
        jobs.wait_for_earlier_start(tmp_path)
        assert 300 < clock.now < 305
        lock(lock_file(tmp_path), "").close()
    lines = capsys.readouterr().err.splitlines()
    holder = f"process {os.getpid()} on "
    assert f" of an earlier start still holds {tmp_path} ({holder}" in lines[0]
    assert lines[1].startswith(f"slurm: no sign of life of {holder}")


def test_a_holder_that_shows_signs_of_life_keeps_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)

    def sleep(seconds: float) -> None:
        clock.now += 10
        os.utime(lock_file(tmp_path), (clock.now, clock.now))

    module = SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep)
    monkeypatch.setattr(jobs, "time", module)
    monkeypatch.setattr(run_lock, "time", module)
    with lock(lock_file(tmp_path), ""):
        jobs.wait_for_earlier_start(tmp_path)
        assert clock.now == 900
        with pytest.raises(UserError, match="used"):
            lock(lock_file(tmp_path), "used")


def test_a_file_system_that_fails_at_the_start_of_a_job_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(run: Path, job: str) -> None:
        raise OSError(errno.ESTALE, "Stale file handle", str(run))

    monkeypatch.setattr(runs, "record_start", fail)
    monkeypatch.setattr(jobs.JobContext, "prepare", lambda self: None)
    monkeypatch.setattr(jobs.rendezvous, "export_variables", lambda: None)
    with pytest.raises(SystemExit, match="2"):
        jobs.TrainingJob((), tmp_path, context(tmp_path), 1)()
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"colortrain train: error: Stale file handle at {tmp_path}: the network")


def test_a_start_is_recorded_before_torch_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal during the import, which takes seconds, must find the start counted."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for name in ("launch", "slurm.devices"):  # the modules that import torch
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr("slurm.devices", raising=False)
    monkeypatch.setattr(jobs.JobContext, "prepare", lambda self: None)
    monkeypatch.setattr(jobs.rendezvous, "export_variables", lambda: None)
    runs.starts_file(tmp_path).parent.mkdir(parents=True)
    with pytest.raises((ImportError, SystemExit)):
        jobs.TrainingJob((), tmp_path, context(tmp_path), 1)()
    assert runs.starts_without_progress(tmp_path, "7") == 1


@pytest.mark.parametrize(("statuses", "exit_status"), [([1, 0], None), ([1, 2, 0], 2)])
def test_images_that_were_left_out_do_not_fail_a_build(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    statuses: list[int],
    exit_status: int | None,
) -> None:
    remaining = list(statuses)
    monkeypatch.setattr(jobs.JobContext, "prepare", lambda self: None)
    monkeypatch.setattr(jobs, "run_command", lambda *args: remaining.pop(0))
    job = jobs.ShardsJob((("build",),) * len(statuses), context(tmp_path))
    if exit_status is None:
        job()
        assert remaining == []
    else:
        with pytest.raises(SystemExit, match=str(exit_status)):
            job()
        assert remaining == [0]
    assert job.checkpoint().function is job
