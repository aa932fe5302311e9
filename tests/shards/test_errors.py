"""Tests of errors: exit status and message of each kind of error."""

import errno
import io
import os
import sys
from pathlib import Path
from typing import TextIO

import pytest

from shards.errors import (
    PERMANENT_ERROR_FILE,
    PermanentError,
    UserError,
    describe,
    is_out_of_memory,
    run_command,
    unknown,
)


def test_unknown_lists_valid_names_nearest_first() -> None:
    error = unknown("split", "tran", ["val", "train", "test"])
    assert str(error) == "unknown split 'tran'; valid, nearest first: train, val, test"
    assert str(unknown("split", "a", [])).endswith("nearest first: none")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("what: do this"), "what: do this"),
        (OSError(errno.ENOENT, "No such file", "/a"), "No such file at /a: check the path"),
        (OSError(errno.ENOENT, "No such file"), "No such file: check the path"),
        (OSError(errno.EPIPE, "Broken pipe"), None),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            "No usable temporary directory found in ['/tmp']: set TMPDIR to a writable folder",
        ),
        (ValueError("a bug"), None),
        (
            MemoryError("Unable to allocate 9 EiB"),
            "not enough memory, run the same command again with a smaller batch or fewer workers "
            "(Unable to allocate 9 EiB)",
        ),
    ],
)
def test_describe(error: Exception, line: str | None) -> None:
    assert describe(error) == line


def caused_by(cause: Exception) -> Exception:
    try:
        try:
            raise cause
        except Exception as error:
            raise ValueError("while it was handled") from error
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        caused_by(MemoryError()),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
        RuntimeError(
            "NCCL error in: a.cpp:9, unhandled cuda error\nCuda failure 2 'out of memory'"
        ),
        RuntimeError("Last error:\nFailed to CUDA calloc async 608 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_a_lack_of_memory_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("size mismatch"), caused_by(ValueError()), ValueError("out of memory")]
)
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(PermanentError("a"), True), (MemoryError(), True), (UserError("a"), False)],
)
def test_errors_that_a_restart_would_not_fix_leave_a_file(
    error: Exception, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PERMANENT_ERROR_FILE, str(tmp_path / "file"))
    assert failing(error) == 2
    assert (tmp_path / "file").exists() == expected
    monkeypatch.setenv(PERMANENT_ERROR_FILE, str(tmp_path / "no folder" / "file"))
    assert failing(error) == 2


def failing(error: BaseException) -> int:
    def main(_: object) -> int:
        raise error

    return run_command("program", main)


def test_user_error_is_one_line_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(UserError("what: do this")) == 2
    assert capsys.readouterr().err == "colortrain program: error: what: do this\n"


def test_bug_prints_a_traceback_with_status_70(capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(ZeroDivisionError()) == os.EX_SOFTWARE == 70
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_ctrl_c_has_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "colortrain program: interrupted\n"


def test_other_ranks_wait_and_print_their_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    monkeypatch.setenv("RANK", "3")
    assert failing(UserError("what: do this")) == 2
    assert capsys.readouterr().err == "colortrain program: error: rank 3: what: do this\n"
    assert waits == [5]


@pytest.mark.parametrize(("result", "status"), [(None, 0), (0, 0), (1, 1)])
def test_result_of_main_is_the_status(result: int | None, status: int) -> None:
    assert run_command("program", lambda _: result) == status


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_unprintable_characters_are_escaped_and_do_not_end_a_command(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "L1 \u2193 caf\udce9.png \U0001f431"
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding, errors="strict"))

    def main(_: object) -> int:
        print(text)
        print(text, file=sys.stderr)
        raise UserError(text)

    assert run_command("program", main) == 2
    expected = text.encode(encoding, "backslashreplace")
    assert printed(sys.stdout) == expected + b"\n"
    assert printed(sys.stderr) == expected + b"\ncolortrain program: error: " + expected + b"\n"


def printed(stream: TextIO) -> bytes:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue()
