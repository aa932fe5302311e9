"""Tests of files: atomic writes, and locks held by one process at a time."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shards.builder.build import LOCK
from shards.errors import UserError
from shards.files import lock, open_atomic, write_atomic
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
