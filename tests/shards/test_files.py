"""Tests of files: atomic writes, locks held by one process, untrusted paths."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shards.builder.build import LOCK
from shards.errors import UserError
from shards.files import (
    IrregularFileError,
    is_path_below,
    lock,
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
    hold = "import sys; from pathlib import Path; from shards.files import lock\n"
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


def test_lock_is_exclusive_and_released_on_close(tmp_path: Path) -> None:
    with lock(tmp_path / "deeper" / "lock", "no"), pytest.raises(UserError, match="mine"):
        lock(tmp_path / "deeper" / "lock", "mine")
    lock(tmp_path / "deeper" / "lock", "mine").close()


def test_file_system_without_locks_prints_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    lock(tmp_path / "lock", "mine").close()
    assert "cannot be locked" in capsys.readouterr().err


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
