"""Tests of remote: checks and retries; test_store.py tests downloads."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from shards.errors import UserError
from shards.read.remote import MismatchError, RetryPolicy, check, with_retries

URL = "http://127.0.0.1/set"
FAST = RetryPolicy(tries=3, wait=0.0)


def test_check_compares_size_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    check(path, 3, digest)
    check(path, None, None)
    with pytest.raises(MismatchError, match="received 3 bytes, expected 4"):
        check(path, 4, digest)
    with pytest.raises(MismatchError, match=f"received SHA-256 {digest}, expected 00"):
        check(path, 3, "00" * 32)


class Failing:
    """An action that raises these errors one after the other, then returns "done"."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_temporary_errors_are_retried(capsys: pytest.CaptureFixture[str]) -> None:
    action = Failing(OSError("reset"), TimeoutError("late"))
    assert with_retries(URL, action, FAST) == "done"
    assert action.calls == 3
    assert capsys.readouterr().err.splitlines() == [
        f"{URL}: reset; try 2 of 3 in 0.0 s",
        f"{URL}: late; try 3 of 3 in 0.0 s",
    ]


def test_last_attempt_raises() -> None:
    action = Failing(*[OSError("reset")] * 9)
    with pytest.raises(UserError, match=rf"^{URL}: reset \(3 tries\): check the address"):
        with_retries(URL, action, FAST)
    assert action.calls == 3


def test_waits_double(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr("random.uniform", lambda low, high: 1.0)
    with_retries(URL, Failing(*[OSError("reset")] * 7), RetryPolicy(tries=8))
    assert waits == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FileNotFoundError(URL), UserError),
        (PermissionError(URL), UserError),
        (UserError("mistake"), UserError),
        (ZeroDivisionError(), ZeroDivisionError),
        (OSError(28, "No space left on device"), OSError),
    ],
)
def test_permanent_errors_are_not_retried(
    error: Exception, expected: type[Exception], tmp_path: Path
) -> None:
    action = Failing(error)
    with pytest.raises(expected):
        with_retries(URL, action, FAST, tmp_path / "file")
    assert action.calls == 1
