"""Tests of files: atomic writes, locks held by one process, untrusted paths."""

import errno
import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shards import files
from shards.builder.build import LOCK
from shards.errors import UserError
from shards.files import (
    IrregularFileError,
    RandomAccessFile,
    is_path_below,
    open_atomic,
    open_regular,
    path_below,
    remove_stale_temporaries,
    sha256_of,
    write_atomic,
)
from shards.inspect.verify import verify
from tests.support.photographs import make_folder, pack_folder


def test_second_build_in_the_same_folder_raises_and_changes_nothing(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", 4)
    hold = "import sys; from pathlib import Path; from shards.locks import lock\n"
    hold += "held = lock(Path(sys.argv[1]), ''); print('held', flush=True); input()"
    first = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "out" / LOCK)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert first.stdout
    assert first.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match=r"another build is running in .*out: wait for it"):
        pack_folder(folder, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]
    first.communicate(b"\n")
    assert pack_folder(folder, tmp_path / "out").num_packed == 4
    verify(tmp_path / "out", quiet=True)


def refuse_fsync(monkeypatch: pytest.MonkeyPatch, number: int, *, folders: bool) -> None:
    """Let `os.fsync` fail for folders only, or for files only."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == folders:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(files, "_warned", False)


@pytest.mark.parametrize(
    ("number", "folders"),
    [
        (errno.EINVAL, True),
        (errno.ENOSYS, True),
        (errno.EBADF, True),
        (errno.EOPNOTSUPP, True),
        (524, True),
        (errno.EINVAL, False),
        (errno.EOPNOTSUPP, False),
    ],
)
def test_without_fsync_a_file_is_written_and_one_warning_is_printed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    folders: bool,
) -> None:
    refuse_fsync(monkeypatch, number, folders=folders)
    for content in (b"one", b"two"):
        write_atomic(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    error = capsys.readouterr().err
    assert error.startswith(f"warning: the file system of {tmp_path} cannot flush its folders")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "folders"),
    [(errno.EIO, True), (errno.EIO, False), (errno.ENOSPC, False), (errno.EBADF, False)],
)
def test_an_fsync_that_fails_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, folders: bool
) -> None:
    refuse_fsync(monkeypatch, number, folders=folders)
    with pytest.raises(OSError, match=os.strerror(number)):
        write_atomic(tmp_path / "file", b"one")


def test_a_folder_that_may_not_be_opened_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some file systems do not open folders, and a folder may be writable only."""
    real = os.open

    def refuse(path: Path, flags: int, *rest: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(files, "_warned", False)
    write_atomic(tmp_path / "file", b"one")
    assert (tmp_path / "file").read_bytes() == b"one"
    assert "(Permission denied)" in capsys.readouterr().err


def test_a_whole_build_and_merge_work_without_links_locks_and_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same bytes as on a file system that supports everything."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    folder = make_folder(tmp_path / "photos", 4)
    pack_folder(folder, tmp_path / "expected")
    for name in ("fcntl.flock", "os.link", "os.fsync"):
        monkeypatch.setattr(name, refuse)
    monkeypatch.setattr(files, "_warned", False)
    pack_folder(folder, tmp_path / "out")
    error = capsys.readouterr().err
    assert error.count("cannot be locked") == error.count("cannot flush") == 1
    found, expected = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*") if path.is_file()}
        for name in ("out", "expected")
    )
    del found[LOCK], expected[LOCK]
    assert found == expected


def test_temporary_name_has_host_and_process(tmp_path: Path) -> None:
    with open_atomic(tmp_path / "file") as stream:
        stream.write(b"x")
        (temporary,) = tmp_path.iterdir()
    assert re.fullmatch(
        rf"\.file\.{re.escape(os.uname().nodename)}\.{os.getpid()}\.tmp", temporary.name
    )


def test_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_atomic(pipe, b"figures")
    reader.join(10)
    assert read == [b"figures"]
    assert pipe.is_fifo()


def test_link_is_kept_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/file")
    for content in (b"one", b"two"):
        write_atomic(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "file").read_bytes() == content
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("relative", "below"),
    [
        ("train/000000.tar", True),
        ("a..b/..c", True),
        ("../x", False),
        ("a/../../x", False),
        ("a/..", False),
        ("/x", False),
        ("a//x", False),
        ("./x", False),
        ("", False),
        ("x\0", False),
    ],
)
def test_path_from_a_file_must_be_below_its_folder(
    tmp_path: Path, relative: str, below: bool
) -> None:
    assert is_path_below(relative) == below
    if below:
        assert path_below(tmp_path, relative) == tmp_path / relative
        return
    with pytest.raises(UserError, match=r"read from a file in it, leads out of it$"):
        path_below(tmp_path, relative)


def test_path_through_a_link_out_of_the_folder_is_read_but_not_written(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train").symlink_to("../other")
    (tmp_path / "set" / "val").symlink_to(".")
    assert path_below(tmp_path / "set", "train/x").resolve() == tmp_path / "other" / "x"
    assert path_below(tmp_path / "set", "val/x", writing=True)
    with pytest.raises(UserError, match=r"set/train/x leads out of .*set through a link"):
        path_below(tmp_path / "set", "train/x", writing=True)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    for function in (open_regular, sha256_of):
        with pytest.raises(IrregularFileError, match=r"file is not a regular file: delete or"):
            function(path)
    path.unlink() if kind != "folder" else path.rmdir()
    path.write_bytes(b"abc")
    with open_regular(path) as stream:
        assert stream.read() == b"abc"


def test_closing_a_file_whose_file_system_is_gone_is_silent(tmp_path: Path) -> None:
    """The error of reading is enough; pytest reports exceptions that are ignored."""
    (tmp_path / "file").write_bytes(b"abc")
    file = RandomAccessFile(tmp_path / "file")
    os.close(file._descriptor)  # closing it again fails
    with pytest.raises(OSError, match="Bad file descriptor") as error:
        file.read_into(memoryview(bytearray(3)), 0)
    assert error.value.filename == str(tmp_path / "file")
    del file


@pytest.mark.parametrize("name", ["a" * 255, "\u00e4" * 127, "a" * 65], ids=len)
def test_any_name_that_the_file_system_allows_is_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with open_atomic(path) as stream:
        stream.write(b"x")
        (temporary,) = tmp_path.iterdir()
        assert len(os.fsencode(temporary.name)) <= 143, "the limit of eCryptfs"
    assert path.read_bytes() == b"x"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["image.png", "a" * 250])
def test_only_temporary_files_of_ended_processes_are_removed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with open_atomic(path):
        (own,) = tmp_path.iterdir()
        killed = subprocess.Popen([sys.executable, "-c", ""])
        killed.wait()
        stale = own.with_name(own.name.replace(f".{os.getpid()}.", f".{killed.pid}."))
        other = own.with_name(f"b{own.name}")
        for each in (stale, other):
            each.touch()
        remove_stale_temporaries(path)
        assert sorted(tmp_path.iterdir()) == sorted([own, other])
