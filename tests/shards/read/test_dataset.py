"""Tests of dataset: samples equal those read by tarfile, and damage is reported."""

from __future__ import annotations

import errno
import io
import os
import pickle
import re
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shards.errors import UserError, describe
from shards.read import dataset
from shards.read.dataset import Split, open_held_out
from tests.support.small_shard_set import small_set


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=16, count=23)


def read_with_tarfile(root: Path) -> tuple[list[int], np.ndarray]:
    """Return keys and samples as read by the standard library, shard by shard."""
    keys, samples = [], []
    for path in sorted(root.rglob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                assert stream is not None
                keys.append(int(member.name.split(".")[0]))
                samples.append(np.load(io.BytesIO(stream.read()), allow_pickle=False))
    return keys, np.stack(samples)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 22), max_size=30))
def test_reads_any_samples_in_any_order(root: Path, requested: list[int]) -> None:
    split = Split(root)
    keys, samples = read_with_tarfile(root)
    np.testing.assert_array_equal(split.read(requested), samples[requested])
    assert [split.key(sample) for sample in requested] == [keys[sample] for sample in requested]


def test_reads_into_a_given_array(root: Path) -> None:
    split = Split(root)
    out = split.empty(3)
    assert split.read([2, 0, 1], out=out) is out
    np.testing.assert_array_equal(out, read_with_tarfile(root)[1][[2, 0, 1]])


def test_reads_float16(tmp_path: Path) -> None:
    root = small_set(tmp_path, size=16, count=3, dtype="float16")
    np.testing.assert_array_equal(Split(root).read([0, 1, 2]), read_with_tarfile(root)[1])


def test_opens_a_split_by_name_or_the_only_one(root: Path, tmp_path: Path) -> None:
    assert Split(root, "train").name == "all"
    two = small_set(tmp_path, size=16, count=7, splits=("train", "test"))
    assert [len(Split(two, name)) for name in ("train", "test")] == [4, 3]
    with pytest.raises(UserError, match="unknown split 'val'; valid, nearest first: "):
        Split(two, "val")


@pytest.mark.parametrize(
    ("splits", "chosen"),
    [
        (("train", "test"), "test"),
        (("test", "val"), "val"),
        (("train", "validation"), "validation"),
        (("all",), "all"),
    ],
)
def test_open_held_out_chooses_the_split(
    tmp_path: Path, splits: tuple[str, ...], chosen: str
) -> None:
    assert open_held_out(small_set(tmp_path, size=16, count=4, splits=splits)).name == chosen


def test_missing_held_out_split_names_those_that_exist(tmp_path: Path) -> None:
    root = small_set(tmp_path, size=16, count=4, splits=("train2014", "val2014"))
    with pytest.raises(UserError, match=r"no split val, .* with --split: train2014, val2014$"):
        open_held_out(root, option="--split")
    assert open_held_out(root, name="val2014").name == "val2014"


def damage(root: Path, kind: str) -> str:
    """Damage a shard set in one way; returns a name that the error must contain."""
    tar, index = sorted(root.rglob("*.tar"))[1], root / "index.npy"
    if kind == "truncated":
        tar.write_bytes(tar.read_bytes()[:-2000])
    elif kind == "missing":
        tar.unlink()
    elif kind == "header":
        data = bytearray(tar.read_bytes())
        data[512 + 3] ^= 255
        tar.write_bytes(bytes(data))
    elif kind == "short index":
        np.save(index, np.load(index)[:-1])
    elif kind == "garbage index":
        index.write_bytes(b"\x00" * 200)
    elif kind == "offsets":
        table = np.load(index)
        table[:, 1] += 1
        np.save(index, table)
    return index.name if "index" in kind else "tar"


@pytest.mark.parametrize(
    "kind", ["truncated", "missing", "header", "short index", "garbage index", "offsets"]
)
def test_damage_raises_a_one_line_error_with_the_file_name(tmp_path: Path, kind: str) -> None:
    root = small_set(tmp_path, size=16, count=12)
    name = damage(root, kind)
    with pytest.raises(UserError, match=name) as error:
        Split(root).read(range(12))
    assert "\n" not in str(error.value)
    assert str(root) in str(error.value)


READ_TRUNCATED = """
import os, sys
from pathlib import Path
from shards.errors import run_command
from shards.read.dataset import Split

def main(argv):
    name, *samples = argv
    split = Split("set")
    split.read(range(12))
    os.truncate(Path("set") / name, int(samples[0]))
    split.key(11)
    split.read(range(12))

sys.exit(run_command("colortrain read", main, sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("name", "length", "message"),
    [
        ("000002.tar", 0, "set/000002.tar: it has 0 bytes instead of 10240: restore it"),
        ("000001.tar", 1500, "set/000001.tar: it has 1500 bytes instead of 10240: restore it"),
        ("index.npy", 0, "set/index.npy is damaged or does not belong to this manifest"),
    ],
)
def test_a_file_cut_short_while_it_is_open_ends_with_one_line(
    tmp_path: Path, name: str, length: int, message: str
) -> None:
    """A memory-mapped file would end the process by SIGBUS, or read as zeros."""
    small_set(tmp_path / "set", size=16, count=12)
    code = [sys.executable, "-c", READ_TRUNCATED, name, str(length)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(code, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done
    assert done.stderr.startswith(f"colortrain read: error: {message}")
    assert done.stderr.count("\n") == 1


def fail_reads(
    monkeypatch: pytest.MonkeyPatch, number: int, descriptors: set[int] | None = None
) -> None:
    """Let `os.preadv` fail, for these file descriptors or for all."""
    real = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if descriptors is None or descriptor in descriptors:
            raise OSError(number, os.strerror(number))
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_file_system_that_fails_is_reported_with_the_file(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    split = Split(root)
    split.read(range(23))
    fail_reads(monkeypatch, number)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        split.read([0])
    text = describe(error.value)
    assert text
    assert re.match(rf"{os.strerror(number)} at {root}/\S+: the (disk or the )?network", text)


def test_a_stale_file_handle_is_opened_again_by_name(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = Split(root)
    expected = split.read(range(23))
    open_files = {
        int(path.name)
        for path in Path("/proc/self/fd").iterdir()
        if path.exists() and str(path.readlink()).startswith(str(root))
    }
    # The copy in the list keeps these file descriptors from being used again.
    kept = [*split._open.values(), split.index]
    fail_reads(monkeypatch, errno.ESTALE, open_files)
    np.testing.assert_array_equal(split.read(range(23)), expected)
    assert len(kept) > 2


def test_parts_of_reads_are_joined(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system may return fewer bytes than requested."""
    expected, real = Split(root).read(range(23)), os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        return real(descriptor, [buffers[0][:100]], offset)

    monkeypatch.setattr(os, "preadv", preadv)
    split = Split(root)
    for _ in range(2):
        np.testing.assert_array_equal(split.read(range(23)), expected)


def test_an_array_of_another_kind_is_refused(root: Path) -> None:
    split = Split(root)
    for out in (np.empty((2, 3, 16, 16), np.float16), np.empty((16, 16, 3, 2), np.uint8).T):
        with pytest.raises(ValueError, match=r"must be contiguous uint8 \(N, 3, 16, 16\)"):
            split.read([0, 1], out=out)


def test_missing_index_is_rebuilt(tmp_path: Path) -> None:
    root = small_set(tmp_path, size=16, count=12)
    before = (root / "index.npy").read_bytes()
    (root / "index.npy").unlink()
    with pytest.warns(UserWarning, match="rebuilt from the tars"):
        split = Split(root)
    np.testing.assert_array_equal(split.read(range(12)), read_with_tarfile(root)[1])
    assert (root / "index.npy").read_bytes() == before


def test_reads_more_shards_than_are_open_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_MAX_OPEN", 2)
    split = Split(root)
    samples = read_with_tarfile(root)[1]
    for start in range(23):  # each read needs all shards
        requested = [(start + 7 * k) % 23 for k in range(10)]
        np.testing.assert_array_equal(split.read(requested), samples[requested])


def test_pickled_copy_reads_the_same(root: Path) -> None:
    split = Split(root)
    first = split.read([3])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(split)).read([3]), first)


def test_concurrent_threads_read_the_same(root: Path) -> None:
    split, samples = Split(root), read_with_tarfile(root)[1]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(split.read, [range(23)] * 40):
            np.testing.assert_array_equal(found, samples)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "damaged"),
        ("no json", "damaged"),
        (None, "not a shard set"),
        ("altered", "dataset_id"),
    ],
)
def test_invalid_manifest_raises(tmp_path: Path, text: str | None, message: str) -> None:
    root = small_set(tmp_path, size=16, count=3)
    manifest = root / "manifest.json"
    if text is None:
        manifest.unlink()
    else:
        manifest.write_text(
            manifest.read_text().replace('"crop"', '"pad"') if text == "altered" else text
        )
    with pytest.raises(UserError, match=message):
        Split(root)
