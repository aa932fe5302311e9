"""The indexed reader: what it copies equals what a plain tar reader sees, and damage is named before it is used."""

from __future__ import annotations

import io
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shards.errors import UserError
from shards.read import dataset
from shards.read.dataset import Split, open_held_out
from tests.support.small_shard_set import small_set


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=16, count=23)


def by_tarfile(root: Path) -> tuple[list[int], np.ndarray]:
    """Keys and samples as the standard library sees them, shard by shard."""
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
def test_any_samples_in_any_order(root: Path, wanted: list[int]) -> None:
    split = Split(root)
    keys, samples = by_tarfile(root)
    np.testing.assert_array_equal(split.read(wanted), samples[wanted])
    assert [split.key(sample) for sample in wanted] == [keys[sample] for sample in wanted]


def test_reads_into_room_that_was_given(root: Path) -> None:
    split = Split(root)
    room = split.empty(3)
    assert split.read([2, 0, 1], out=room) is room
    np.testing.assert_array_equal(room, by_tarfile(root)[1][[2, 0, 1]])


def test_float16_sets(tmp_path: Path) -> None:
    root = small_set(tmp_path, size=16, count=3, dtype="float16")
    np.testing.assert_array_equal(Split(root).read([0, 1, 2]), by_tarfile(root)[1])


def test_a_split_by_name_or_the_only_one(root: Path, tmp_path: Path) -> None:
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
def test_what_is_scored_on(tmp_path: Path, splits: tuple[str, ...], chosen: str) -> None:
    assert open_held_out(small_set(tmp_path, size=16, count=4, splits=splits)).name == chosen


def damaged(root: Path, what: str) -> str:
    """Break one thing of a set; the name that the error must say."""
    tar, index = sorted(root.rglob("*.tar"))[1], root / "index.npy"
    if what == "truncated":
        tar.write_bytes(tar.read_bytes()[:-2000])
    elif what == "missing":
        tar.unlink()
    elif what == "header":
        data = bytearray(tar.read_bytes())
        data[512 + 3] ^= 255
        tar.write_bytes(bytes(data))
    elif what == "short index":
        np.save(index, np.load(index)[:-1])
    elif what == "garbage index":
        index.write_bytes(b"\x00" * 200)
    elif what == "offsets":
        table = np.load(index)
        table[:, 1] += 1
        np.save(index, table)
    return index.name if "index" in what else "tar"


@pytest.mark.parametrize(
    "what", ["truncated", "missing", "header", "short index", "garbage index", "offsets"]
)
def test_damage_is_one_line_that_names_the_file(tmp_path: Path, what: str) -> None:
    root = small_set(tmp_path, size=16, count=12)
    name = damaged(root, what)
    with pytest.raises(UserError, match=name) as error:
        Split(root).read(range(12))
    assert "\n" not in str(error.value)
    assert str(root) in str(error.value)


def test_an_index_that_is_missing_is_made_again(tmp_path: Path) -> None:
    root = small_set(tmp_path, size=16, count=12)
    before = (root / "index.npy").read_bytes()
    (root / "index.npy").unlink()
    with pytest.warns(UserWarning, match="made again from the tars"):
        split = Split(root)
    np.testing.assert_array_equal(split.read(range(12)), by_tarfile(root)[1])
    assert (root / "index.npy").read_bytes() == before


def test_more_shards_than_are_open_at_a_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_MAX_OPEN", 2)
    split = Split(root)
    samples = by_tarfile(root)[1]
    for start in range(23):  # every read goes through all shards
        wanted = [(start + 7 * k) % 23 for k in range(10)]
        np.testing.assert_array_equal(split.read(wanted), samples[wanted])


def test_a_copy_for_another_process(root: Path) -> None:
    split = Split(root)
    first = split.read([3])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(split)).read([3]), first)


def test_threads_read_the_same(root: Path) -> None:
    split, samples = Split(root), by_tarfile(root)[1]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(split.read, [range(23)] * 40):
            np.testing.assert_array_equal(found, samples)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "damaged"),
        ("no json", "damaged"),
        (None, "not a shard set"),
        ("altered", "dataset_id"),
    ],
)
def test_a_manifest_that_cannot_be_believed(tmp_path: Path, text: str | None, said: str) -> None:
    root = small_set(tmp_path, size=16, count=3)
    manifest = root / "manifest.json"
    if text is None:
        manifest.unlink()
    else:
        manifest.write_text(
            manifest.read_text().replace('"crop"', '"pad"') if text == "altered" else text
        )
    with pytest.raises(UserError, match=said):
        Split(root)
