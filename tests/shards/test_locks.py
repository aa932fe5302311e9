"""Locks: held by one process or shared, and file systems that refuse them."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from pathlib import Path

import pytest

from shards.builder.parts import Part, lock_part
from shards.builder.plan import LOCK
from shards.errors import UserError, run_command
from shards.locks import holder_of, lock


def refuse_locks(monkeypatch: pytest.MonkeyPatch, number: int, times: int = 99) -> list[int]:
    """Let `fcntl.flock` fail `times` times; returns a list with one entry per call."""
    calls: list[int] = []
    real = fcntl.flock

    def flock(stream: object, operation: int) -> None:
        calls.append(operation)
        if len(calls) <= times:
            raise OSError(number, os.strerror(number))
        real(stream, operation)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", flock)
    return calls


def test_lock_is_exclusive_and_released_on_close(tmp_path: Path) -> None:
    with lock(tmp_path / "deeper" / "lock", "no"), pytest.raises(UserError, match="mine"):
        lock(tmp_path / "deeper" / "lock", "mine")
    lock(tmp_path / "deeper" / "lock", "mine").close()


def test_the_error_names_the_process_that_holds_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    path = tmp_path / "lock"
    with lock(path, ""), pytest.raises(UserError) as error:
        lock(path, "it is used: wait")
    host = re.escape(os.uname().nodename)
    assert re.fullmatch(
        rf"it is used: wait \(locked by process {os.getpid()} on {host}, SLURM job 7 after 2 "
        rf"restarts, since [-0-9]+ [:0-9]+ UTC; if that process has ended, delete {path}\)",
        str(error.value),
    )
    # As the message says, deleting the file ends a lock that nobody holds any more.
    with lock(path, ""):
        path.unlink()
        lock(path, "").close()


def test_shared_locks_name_no_process(tmp_path: Path) -> None:
    with lock(tmp_path / "lock", ""):
        assert holder_of(tmp_path / "lock")
    assert (tmp_path / "lock").read_bytes() == b""
    (tmp_path / "lock").write_bytes(b"a process that was killed")
    with lock(tmp_path / "lock", "", shared=True), lock(tmp_path / "lock", "", shared=True):
        assert not holder_of(tmp_path / "lock")
        with pytest.raises(UserError, match=r"^used$"):
            lock(tmp_path / "lock", "used")


@pytest.mark.parametrize("content", [b"\x1b[31m", b"a\nb", b"\xff" * 400, b""])
def test_a_line_that_is_not_ours_does_not_spoil_the_message(tmp_path: Path, content: bytes) -> None:
    with lock(tmp_path / "lock", ""):
        (tmp_path / "lock").write_bytes(content)
        with pytest.raises(UserError) as error:
            lock(tmp_path / "lock", "used")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524])
def test_without_locks_one_warning_is_printed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    refuse_locks(monkeypatch, number)
    for _ in range(2):
        lock(tmp_path / "lock", "mine").close()
    assert capsys.readouterr().err == (
        f"{tmp_path}/lock cannot be locked ({os.strerror(number)}): "
        "make sure that no other process uses this folder\n"
    )
    with lock_part(tmp_path, Part(1, 2)):
        pass
    error = capsys.readouterr().err.splitlines()
    assert error[0].endswith("do not start a merge while parts are running")
    assert len(error) == 2


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_lock_that_fails_is_one_line_and_no_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    """Only a file system without locks is a reason to go on without one."""
    refuse_locks(monkeypatch, number)

    def main(_: object) -> None:
        with lock_part(tmp_path, Part(1, 2)):
            raise AssertionError("not locked")

    assert run_command("shards", main, []) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"colortrain shards: error: {os.strerror(number)} at {tmp_path}/{LOCK}:")
    assert line.count("\n") == 1


def test_a_stale_lock_file_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = refuse_locks(monkeypatch, errno.ESTALE, times=2)
    with lock(tmp_path / "lock", ""):
        assert len(calls) == 3
        with pytest.raises(UserError, match="used"):
            lock(tmp_path / "lock", "used")
