"""The cache stays below its size, drops what was used longest ago, and touches nothing that is not its own."""

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


def filled(bytes: int, calls: list[int] | None = None) -> Callable[[Path], None]:
    def fill(path: Path) -> None:
        path.write_bytes(b"x" * bytes)
        if calls is not None:
            calls.append(bytes)

    return fill


def get(cache: Cache, number: int, fill: Callable[[Path], None], bytes: int | None = None) -> Path:
    found = cache.get(KEY, f"train/{number}", fill, bytes=bytes)
    assert found
    return found


def held(folder: Path) -> set[int]:
    """The numbers of the whole files in a cache."""
    return {
        int(path.name[-1]) for path in (folder / KEY).iterdir() if not path.name.startswith(".")
    }


def grow_old(folder: Path, numbers: list[int]) -> None:
    """Make files as old as the order of a list says, the first the oldest; the clock of a disk is coarse."""
    for age, number in enumerate(reversed(numbers), 1):
        os.utime(folder / KEY / f"train%2F{number}", (time.time() - 100 * age,) * 2)


def test_the_least_recently_used_go_and_no_more_than_needed(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 100)
    for number in range(5):
        get(cache, number, filled(20), 20)
    assert held(tmp_path) == {0, 1, 2, 3, 4}
    grow_old(tmp_path, [3, 0, 4, 1, 2])
    get(cache, 3, filled(20), 20)  # used again: now 0 is the oldest
    get(Cache(tmp_path, 100), 5, filled(21), 21)  # after a restart
    assert held(tmp_path) == {1, 2, 3, 5}
    get(Cache(tmp_path, 100), 6, filled(19), 19)
    assert held(tmp_path) == {1, 2, 3, 5, 6}


def test_a_file_that_is_here_is_not_brought_again_unless_its_length_is_wrong(
    tmp_path: Path,
) -> None:
    calls: list[int] = []
    cache = Cache(tmp_path, 100)
    for _ in range(3):
        path = get(cache, 1, filled(7, calls), 7)
    assert path == tmp_path / KEY / "train%2F1"
    assert calls == [7]
    path.write_bytes(b"x" * 6)
    get(cache, 1, filled(7, calls), 7)
    assert calls == [7, 7]
    assert path.read_bytes() == b"x" * 7


def test_a_smaller_size_holds_from_the_start(tmp_path: Path) -> None:
    for number in range(5):
        get(Cache(tmp_path, 100), number, filled(20), 20)
    grow_old(tmp_path, [0, 1, 2, 3, 4])
    get(Cache(tmp_path, 45), 4, filled(20), 20)
    assert held(tmp_path) == {3, 4}


def test_a_length_that_is_not_known_before_is_minded_after(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 100)
    get(cache, 0, filled(60), 60)
    grow_old(tmp_path, [0])
    get(cache, 1, filled(50))
    assert held(tmp_path) == {1}
    with pytest.raises(
        UserError,
        match=r"^train/2 has 101 bytes, the cache .* may hold 100: give it a larger size$",
    ):
        get(cache, 2, filled(101))
    assert held(tmp_path) == {1}


def test_a_file_larger_than_the_cache_is_refused_before_it_is_brought(tmp_path: Path) -> None:
    calls: list[int] = []
    cache = Cache(tmp_path, 100)
    get(cache, 0, filled(60), 60)
    with pytest.raises(
        UserError, match=r"train/1 has 101 bytes, the cache .* may hold 100: give it a larger size"
    ):
        get(cache, 1, filled(101, calls), 101)
    assert not calls
    assert held(tmp_path) == {0}


def test_a_mapped_file_stays_readable_when_it_is_dropped(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 100)
    path = get(cache, 0, filled(60), 60)
    with open(path, "rb") as stream:
        get(cache, 1, filled(60), 60)
        assert not path.exists()
        assert stream.read() == b"x" * 60


def test_what_fails_leaves_nothing_and_is_told(tmp_path: Path) -> None:
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


def test_a_folder_with_other_things_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / f"{KEY}.jpg").write_bytes(b"x" * 50)
    with pytest.raises(
        UserError, match="holds other things than a cache: give --cache an empty or a new folder"
    ):
        get(Cache(tmp_path, 10), 0, filled(1))
    assert [path.name for path in tmp_path.iterdir()] == [f"{KEY}.jpg"]


def test_others_files_in_a_cache_are_not_counted_or_dropped(tmp_path: Path) -> None:
    get(Cache(tmp_path, 100), 0, filled(20), 20)
    (tmp_path / "notes.txt").write_bytes(b"x" * 1000)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "notes.txt").write_bytes(b"x" * 1000)
    cache = Cache(tmp_path, 100)
    for number in range(1, 6):
        get(cache, number, filled(80), 80)
    assert (tmp_path / "notes.txt").stat().st_size == 1000
    assert (tmp_path / "more" / "notes.txt").is_file()
    assert held(tmp_path) == {5}


def test_two_that_do_not_fit_together_take_turns(tmp_path: Path) -> None:
    """The second waits until the first is whole, then drops it: never more than the cache may hold."""
    sizes: list[int] = []
    begun = threading.Event()

    def slow(path: Path) -> None:
        with open(path, "wb") as stream:
            for _ in range(10):
                stream.write(b"x" * 7)
                stream.flush()
                begun.set()
                sizes.append(sum(each.stat().st_size for each in tmp_path.glob("*/.*.part")))
                time.sleep(0.01)

    def bring(number: int) -> None:
        assert get(Cache(tmp_path, 100), number, slow, 70)

    first = threading.Thread(target=bring, args=(0,))
    first.start()
    assert begun.wait(10)
    bring(1)
    first.join()
    assert held(tmp_path) == {1}
    assert len(sizes) == 20
    assert max(sizes) == 70


def test_threads_bring_a_file_once(tmp_path: Path) -> None:
    calls: list[int] = []
    cache = Cache(tmp_path, 100)

    def slow(path: Path) -> None:
        time.sleep(0.1)
        filled(10, calls)(path)

    threads = [threading.Thread(target=get, args=(cache, 0, slow)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [10]
    assert [path.name for path in (tmp_path / KEY).iterdir()] == ["train%2F0"]


def test_who_does_not_wait_goes_on_without(tmp_path: Path) -> None:
    begun, end = threading.Event(), threading.Event()

    def slow(path: Path) -> None:
        begun.set()
        end.wait(10)
        path.write_bytes(b"x")

    first = threading.Thread(target=get, args=(Cache(tmp_path, 100), 0, slow))
    first.start()
    assert begun.wait(10)
    assert Cache(tmp_path, 100).get(KEY, "train/0", filled(1), wait=False) is None
    end.set()
    first.join()
    assert (
        Cache(tmp_path, 100).get(KEY, "train/0", filled(1), wait=False)
        == tmp_path / KEY / "train%2F0"
    )


def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(
        UserError, match=r"has no file locks .*: give --cache a folder on a local disk"
    ):
        get(Cache(tmp_path, 100), 0, filled(1))
