"""Tests of cache: size limit, eviction order, concurrent downloads, foreign files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.errors import UserError, describe
from shards.read.cache import TAG, Cache

KEY = "0123456789abcdef"


def writer(bytes: int, calls: list[int] | None = None) -> Callable[[Path], None]:
    """Return a download function that writes `bytes` bytes and appends to `calls`."""

    def fill(path: Path) -> None:
        path.write_bytes(b"x" * bytes)
        if calls is not None:
            calls.append(bytes)

    return fill


def get(cache: Cache, number: int, fill: Callable[[Path], None], bytes: int | None = None) -> Path:
    path = cache.get(KEY, f"train/{number}", fill, bytes=bytes)
    assert path
    return path


def complete_files(folder: Path) -> set[int]:
    """Return the numbers of the complete files in a cache."""
    return {
        int(path.name[-1]) for path in (folder / KEY).iterdir() if not path.name.startswith(".")
    }


def set_ages(folder: Path, numbers: list[int]) -> None:
    """Set modification times 100 s apart in this order, the first one the oldest."""
    for age, number in enumerate(reversed(numbers), 1):
        os.utime(folder / KEY / f"train%2F{number}", (time.time() - 100 * age,) * 2)


def test_least_recently_used_files_are_evicted_and_no_more_than_needed(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 100)
    for number in range(5):
        get(cache, number, writer(20), 20)
    assert complete_files(tmp_path) == {0, 1, 2, 3, 4}
    set_ages(tmp_path, [3, 0, 4, 1, 2])
    get(cache, 3, writer(20), 20)  # used again: now 0 is the oldest
    get(Cache(tmp_path, 100), 5, writer(21), 21)  # after a restart
    assert complete_files(tmp_path) == {1, 2, 3, 5}
    get(Cache(tmp_path, 100), 6, writer(19), 19)
    assert complete_files(tmp_path) == {1, 2, 3, 5, 6}


def test_cached_file_is_downloaded_again_only_if_its_size_is_wrong(
    tmp_path: Path,
) -> None:
    calls: list[int] = []
    cache = Cache(tmp_path, 100)
    for _ in range(3):
        path = get(cache, 1, writer(7, calls), 7)
    assert path == tmp_path / KEY / "train%2F1"
    assert calls == [7]
    path.write_bytes(b"x" * 6)
    get(cache, 1, writer(7, calls), 7)
    assert calls == [7, 7]
    assert path.read_bytes() == b"x" * 7


def test_smaller_limit_applies_to_existing_files(tmp_path: Path) -> None:
    for number in range(5):
        get(Cache(tmp_path, 100), number, writer(20), 20)
    set_ages(tmp_path, [0, 1, 2, 3, 4])
    get(Cache(tmp_path, 45), 4, writer(20), 20)
    assert complete_files(tmp_path) == {3, 4}


def test_limit_applies_to_a_file_of_unknown_size_after_download(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 100)
    get(cache, 0, writer(60), 60)
    set_ages(tmp_path, [0])
    get(cache, 1, writer(50))
    assert complete_files(tmp_path) == {1}
    with pytest.raises(
        UserError,
        match=r"^train/2 has 1.01e-07 GB, but the cache .* is limited to 1e-07 GB: "
        "increase --cache-size$",
    ):
        get(cache, 2, writer(101))
    assert complete_files(tmp_path) == {1}


def test_file_larger_than_the_cache_raises_before_download(tmp_path: Path) -> None:
    calls: list[int] = []
    cache = Cache(tmp_path, 100)
    get(cache, 0, writer(60), 60)
    with pytest.raises(
        UserError,
        match=r"train/1 has 1.01e-07 GB, but the cache .* is limited to 1e-07 GB: increase",
    ):
        get(cache, 1, writer(101, calls), 101)
    assert not calls
    assert complete_files(tmp_path) == {0}


def test_open_file_stays_readable_after_eviction(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 100)
    path = get(cache, 0, writer(60), 60)
    with open(path, "rb") as stream:
        get(cache, 1, writer(60), 60)
        assert not path.exists()
        assert stream.read() == b"x" * 60


def test_failed_download_raises_and_leaves_no_file(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    cache = Cache(tmp_path, 100)
    with pytest.raises(OSError, match="No space") as caught:
        get(cache, 0, fail, 50)
    line = describe(caught.value)
    assert line
    assert line.startswith(f"No space left on device at {tmp_path}")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".lock", KEY, TAG]


def test_folder_with_other_files_raises_and_is_unchanged(tmp_path: Path) -> None:
    (tmp_path / f"{KEY}.jpg").write_bytes(b"x" * 50)
    with pytest.raises(
        UserError,
        match="contains files and is not a cache: give --cache a new or an empty folder",
    ):
        get(Cache(tmp_path, 10), 0, writer(1))
    assert [path.name for path in tmp_path.iterdir()] == [f"{KEY}.jpg"]


def test_foreign_files_in_a_cache_are_not_counted_or_deleted(tmp_path: Path) -> None:
    get(Cache(tmp_path, 100), 0, writer(20), 20)
    (tmp_path / "notes.txt").write_bytes(b"x" * 1000)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "notes.txt").write_bytes(b"x" * 1000)
    cache = Cache(tmp_path, 100)
    for number in range(1, 6):
        get(cache, number, writer(80), 80)
    assert (tmp_path / "notes.txt").stat().st_size == 1000
    assert (tmp_path / "more" / "notes.txt").is_file()
    assert complete_files(tmp_path) == {5}


def test_files_that_do_not_fit_together_are_downloaded_in_turn(tmp_path: Path) -> None:
    """The second download waits until it can evict the first, so the limit holds."""
    sizes: list[int] = []
    started = threading.Event()

    def slow(path: Path) -> None:
        with open(path, "wb") as stream:
            for _ in range(10):
                stream.write(b"x" * 7)
                stream.flush()
                started.set()
                sizes.append(sum(each.stat().st_size for each in tmp_path.glob("*/.*.part")))
                time.sleep(0.01)

    def download(number: int) -> None:
        assert get(Cache(tmp_path, 100), number, slow, 70)

    first = threading.Thread(target=download, args=(0,))
    first.start()
    assert started.wait(10)
    download(1)
    first.join()
    assert complete_files(tmp_path) == {1}
    assert len(sizes) == 20
    assert max(sizes) == 70


def test_threads_download_a_file_once(tmp_path: Path) -> None:
    calls: list[int] = []
    cache = Cache(tmp_path, 100)

    def slow(path: Path) -> None:
        time.sleep(0.1)
        writer(10, calls)(path)

    threads = [threading.Thread(target=get, args=(cache, 0, slow)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [10]
    assert [path.name for path in (tmp_path / KEY).iterdir()] == ["train%2F0"]


def test_get_without_wait_returns_none_during_a_download(tmp_path: Path) -> None:
    started, end = threading.Event(), threading.Event()

    def slow(path: Path) -> None:
        started.set()
        end.wait(10)
        path.write_bytes(b"x")

    first = threading.Thread(target=get, args=(Cache(tmp_path, 100), 0, slow))
    first.start()
    assert started.wait(10)
    assert Cache(tmp_path, 100).get(KEY, "train/0", writer(1), wait=False) is None
    end.set()
    first.join()
    assert (
        Cache(tmp_path, 100).get(KEY, "train/0", writer(1), wait=False)
        == tmp_path / KEY / "train%2F0"
    )


def test_file_system_without_locks_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(
        UserError, match=r"does not support file locks .*: give --cache a folder on a local disk"
    ):
        get(Cache(tmp_path, 100), 0, writer(1))


def test_lock_that_fails_is_reported_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OSError, match="Stale file handle") as error:
        get(Cache(tmp_path, 100), 0, writer(1))
    assert error.value.filename == str(tmp_path / ".lock")
