"""The lock on a run folder, its signs of life, and processes taken for lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from colortrain.runs import run_lock
from colortrain.runs.layout import lock_file
from colortrain.runs.run_lock import LockWatch, RunLock
from shards.errors import UserError


def test_a_second_lock_is_refused_until_the_first_is_released(tmp_path: Path) -> None:
    with RunLock(tmp_path) as first:
        first.acquire()
        first.check()
        with pytest.raises(UserError, match=r"is being trained by another process: .*locked by"):
            RunLock(tmp_path).acquire()
    with RunLock(tmp_path) as second:
        second.acquire()


def test_a_lock_that_is_not_updated_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "STALE_AFTER", 0.4)
    monkeypatch.setattr(run_lock, "_UPDATE_INTERVAL", 0.02)
    with RunLock(tmp_path) as lock:
        lock.acquire()
        watch = LockWatch(tmp_path)
        for _ in range(10):
            assert not watch.is_stale()
            time.sleep(0.08)
        lock._released.set()  # no more updates
        time.sleep(0.1)
        assert not watch.is_stale()
        time.sleep(0.5)
        assert watch.is_stale()


def test_a_lock_of_another_version_is_never_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not describe its holder, and may not be updated."""
    monkeypatch.setattr(run_lock, "STALE_AFTER", 0.0)
    watch = LockWatch(tmp_path)
    lock_file(tmp_path).touch()
    for _ in range(3):
        assert not watch.is_stale()
        time.sleep(0.01)


def test_a_process_whose_lock_was_replaced_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunLock(tmp_path) as lost, RunLock(tmp_path) as new:
        lost.acquire()
        lock_file(tmp_path).unlink()
        lost.check()  # by a user, perhaps
        monkeypatch.setenv("SLURM_JOB_ID", "8")
        new.acquire()
        new.check()
        with pytest.raises(UserError, match=r"has been taken over by process .*, SLURM job 8, "):
            lost.check()


def test_a_run_without_a_lock_is_not_checked(tmp_path: Path) -> None:
    with RunLock(tmp_path) as lock:  # on ranks other than 0
        lock.check()
