"""Tests of split_files: damaged copies are replaced, and the file at fault is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shards.errors import UserError
from shards.format.manifest import load_manifest
from shards.read.cache import Cache
from shards.read.dataset import DamagedSampleError, Split
from shards.read.remote import RetryPolicy
from shards.read.store import Remote
from tests.support.http_server import Server, serving
from tests.support.small_shard_set import small_set

KEY, OFFSET, CRC = 0, 8, 16  # bytes of a row of the index
ROW = 128 + 3 * 24  # of sample 3: after the header of 128 bytes
PIXEL = 512 + 200  # a byte of the first member's pixels


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=16, count=12)


@pytest.fixture
def root(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "served" / "set"))


@pytest.fixture
def server(root: Path) -> Iterator[Server]:
    with serving(root.parent) as server:
        yield server


@pytest.fixture
def open_remote(server: Server, tmp_path: Path) -> Callable[[], Split]:
    """Return a function that opens the served set with the same cache."""
    return lambda: Split(f"{server.url}/set", cache=Cache(tmp_path / "cache", 1 << 30))


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def cached(tmp_path: Path, name: str) -> Path:
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    return path


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("000000.tar", PIXEL),
        ("000000.tar", 3),
        ("index.npy", ROW + KEY),
        ("index.npy", ROW + OFFSET),
        ("index.npy", ROW + CRC),
        ("index.npy", 9),
    ],
)
def test_flipped_bit_in_the_cache_is_replaced_by_one_download(
    open_remote: Callable[[], Split],
    server: Server,
    intact: Path,
    tmp_path: Path,
    name: str,
    offset: int,
) -> None:
    expected = Split(intact).read(range(12))
    np.testing.assert_array_equal(open_remote().read(range(12)), expected)
    flip(cached(tmp_path, name), offset)
    for _ in range(2):
        np.testing.assert_array_equal(open_remote().read(range(12)), expected)
    requests = {each.name: server.requests[f"set/{each.name}"] for each in intact.glob("*.tar")}
    requests["index.npy"] = server.requests["set/index.npy"]
    assert requests.pop(name) == 2
    assert set(requests.values()) == {1}
    assert cached(tmp_path, name).read_bytes() == (intact / name).read_bytes()


def test_bit_that_flips_while_the_cache_is_open_is_replaced(
    open_remote: Callable[[], Split], intact: Path, tmp_path: Path
) -> None:
    split = open_remote()
    split.read([4])
    with open(cached(tmp_path, "000000.tar"), "r+b") as stream:
        stream.seek(PIXEL)
        stream.write(b"\xff\x00")
    np.testing.assert_array_equal(split.read(range(12)), Split(intact).read(range(12)))


@pytest.mark.parametrize("offset", [ROW + KEY, ROW + OFFSET, ROW + CRC, 9])
def test_wrong_index_in_the_store_is_named_after_one_more_download(
    open_remote: Callable[[], Split], server: Server, root: Path, offset: int
) -> None:
    flip(root / "index.npy", offset)
    for count in (2, 3):  # each run begins with the copy of the run before it
        with pytest.raises(UserError, match=rf"^{server.url}/set/index.npy.*in the store$"):
            open_remote().read(range(12))
        assert server.requests["set/index.npy"] == count
    assert server.requests["set/000000.tar"] <= 1


def test_repeated_damage_is_downloaded_again_only_once(
    open_remote: Callable[[], Split], server: Server, root: Path
) -> None:
    for row in range(12):
        flip(root / "index.npy", 128 + row * 24 + CRC)
    split = open_remote()
    for sample in range(12):
        with pytest.raises(DamagedSampleError, match=r"index.npy: .*replace it in the store"):
            split.read([sample])
    assert server.requests["set/index.npy"] == 2


def test_tar_that_is_wrong_in_the_cache_and_in_the_store_is_named_by_its_url(
    open_remote: Callable[[], Split], server: Server, tmp_path: Path, root: Path
) -> None:
    open_remote().read(range(12))
    flip(cached(tmp_path, "000000.tar"), PIXEL)
    flip(root / "000000.tar", PIXEL)
    split = open_remote()
    assert isinstance(split.store, Remote)
    split.store.policy = RetryPolicy(wait=0.01)
    with pytest.raises(UserError, match=rf"^{server.url}/set/000000.tar: received SHA-256 "):
        split.read(range(12))
    assert server.requests["set/000000.tar"] == 4  # three tries after the first run


def test_cache_that_damages_files_is_named(
    open_remote: Callable[[], Split],
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    download = Cache._download

    def damaging(cache: Cache, path: Path, name: str, *args: object) -> None:
        download(cache, path, name, *args)  # type: ignore[arg-type]
        if name.endswith(".tar"):
            flip(path, PIXEL)

    monkeypatch.setattr(Cache, "_download", damaging)
    with pytest.raises(
        DamagedSampleError,
        match=rf"^{tmp_path}/cache/\w+/000000.tar: .*: check the disk of the cache, or give",
    ):
        open_remote().read(range(12))
    assert server.requests["set/000000.tar"] == 2


@pytest.mark.parametrize("column", [KEY, OFFSET, CRC])
def test_wrong_index_in_a_folder_is_named_and_can_be_rebuilt(
    root: Path, intact: Path, column: int
) -> None:
    flip(root / "index.npy", ROW + column)
    with pytest.raises(
        DamagedSampleError, match=rf"^{root}/index.npy: .* 000000.tar, which is intact: delete it"
    ) as caught:
        Split(root).read(range(12))
    assert caught.value.row == 3
    (root / "index.npy").unlink()
    with pytest.warns(UserWarning, match="rebuilt"):
        np.testing.assert_array_equal(Split(root).read(range(12)), Split(intact).read(range(12)))


def test_wrong_tar_in_a_folder_is_named(root: Path) -> None:
    flip(root / "000001.tar", PIXEL)
    with pytest.raises(DamagedSampleError, match=rf"^{root}/000001.tar: .*: restore it"):
        Split(root).read(range(12))


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", ["000000.tar", "index.npy"])
def test_pipes_and_devices_in_a_folder_are_refused(root: Path, kind: str, name: str) -> None:
    (root / name).unlink()
    os.mkfifo(root / name) if kind == "pipe" else (root / name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match=rf"{root}/{name}.*not a regular file") as caught:
        Split(root).read(range(12))
    assert "\n" not in str(caught.value)


def test_missing_index_is_not_written_through_a_link_out_of_the_folder(root: Path) -> None:
    expected = (root / "index.npy").read_bytes()
    (root / "index.npy").unlink()
    (root / "index.npy").symlink_to("../victim")
    with pytest.warns(UserWarning, match="rebuilt"):
        assert (split := Split(root)).index.rows(0, len(split)).tobytes() == expected[128:]
    assert not (root.parent / "victim").exists()


def test_index_larger_than_the_manifest_says_is_refused(
    open_remote: Callable[[], Split], server: Server
) -> None:
    server.faults["set/index.npy"].extend(["endless"] * 3)
    samples = load_manifest(server.root / "set").samples("all")
    size = 128 + 24 * samples
    with pytest.raises(UserError, match=rf"index.npy: received more than {size} bytes"):
        open_remote()
