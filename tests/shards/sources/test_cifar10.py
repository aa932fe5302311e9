"""Tests of cifar10: equal images from both layouts, and no execution of pickles."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shards.color import lab_to_rgb, unpack
from shards.errors import UserError
from shards.format.manifest import load_manifest
from shards.format.tar_layout import read_pixels
from shards.sources.cifar10 import load_labelled, load_python
from tests.support.photographs import fingerprint, pack_folder, random_crops

BATCHES = ("data_batch_1", "data_batch_2", "test_batch")


def rows(seed: int, count: int = 20) -> np.ndarray:
    planes = [crop.transpose(2, 0, 1) for crop in random_crops(3 * count, 32)]
    return np.stack(planes[seed * count : (seed + 1) * count]).reshape(count, -1)


def make_binary(folder: Path) -> Path:
    folder.mkdir()
    for seed, name in enumerate(BATCHES):
        np.insert(rows(seed), 0, seed, 1).tofile(folder / f"{name}.bin")
    return folder


def make_python(folder: Path, protocol: int = 2) -> Path:
    folder.mkdir()
    for seed, name in enumerate(BATCHES):
        batch = {
            b"batch_label": b"x",
            b"labels": [seed] * 20,
            b"data": rows(seed),
            b"filenames": [b"a.png"] * 20,
        }
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    return folder


@pytest.mark.parametrize("protocol", range(6))
def test_all_pickle_protocols_are_read(tmp_path: Path, protocol: int) -> None:
    folder = make_python(tmp_path / "cifar", protocol)
    assert np.array_equal(load_python(str(folder / "data_batch_1")), rows(0))


def test_both_layouts_have_equal_labels(tmp_path: Path) -> None:
    python, binary = make_python(tmp_path / "python"), make_binary(tmp_path / "binary")
    for seed, name in enumerate(BATCHES):
        for path in (python / name, binary / f"{name}.bin"):
            pixels, labels = load_labelled(path)
            assert np.array_equal(pixels, rows(seed))
            assert labels.tolist() == [seed] * 20


def test_batch_without_labels_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": rows(0), b"labels": [0]}))
    with pytest.raises(UserError, match="no label for each image"):
        load_labelled(path)


def test_published_python_2_pickle_is_read(tmp_path: Path) -> None:
    # The opcodes that Python 2's cPickle wrote: str keys, pixels as str, and integers
    # where numpy now writes booleans.
    pixels = rows(0, 2).tobytes()
    data = (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\n"
        b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + len(pixels).to_bytes(4, "little")
        + pixels
        + b"tbs."
    )
    (tmp_path / "data_batch_1").write_bytes(data)
    assert np.array_equal(load_python(str(tmp_path / "data_batch_1")), rows(0, 2))


def test_both_layouts_give_the_same_shards_with_the_source_splits(tmp_path: Path) -> None:
    make_binary(tmp_path / "bin")
    make_python(tmp_path / "py")
    for name in ("bin", "py"):
        pack_folder(tmp_path / name, tmp_path / f"{name}-shards", splits="source")
    manifest = load_manifest(tmp_path / "bin-shards")
    assert {split: manifest.samples(split) for split in manifest.splits} == {
        "train": 40,
        "test": 20,
    }
    tars = [
        {k: v for k, v in fingerprint(tmp_path / f"{n}-shards").items() if k.endswith("tar")}
        for n in ("bin", "py")
    ]
    assert tars[0] == tars[1]
    assert {Path(k).parts[0] for k in tars[0]} == {"train", "test"}


def test_pixels_match_the_file(tmp_path: Path) -> None:
    make_binary(tmp_path / "bin")
    pack_folder(str(tmp_path / "bin" / "test_batch.bin"), tmp_path / "out", shard_size=20)
    shard = load_manifest(tmp_path / "out").splits["all"][0]
    (stored,) = read_pixels(tmp_path / "out" / shard.path, 20, 32, "uint8", chunk=20)
    found = sorted(lab_to_rgb(unpack(each)).mean() for each in stored)
    np.testing.assert_allclose(found, np.sort(rows(2).mean(1)), atol=1)


class Reduced:
    """An object that is pickled as the given call and state."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[object, ...]:
        return self.parts


def load_error(folder: Path, data: bytes) -> str:
    """Return the message of the error that loading this pickle must raise."""
    (folder / "data_batch_1").write_bytes(data)
    with pytest.raises(UserError, match=r"is not in CIFAR's Python layout") as caught:
        load_python(str(folder / "data_batch_1"))
    return str(caught.value)


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_a_pickle_is_not_executed(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "executed"
    malicious = pickle.dumps({b"data": Reduced(os.system, (f"touch {marker}",))}, protocol)
    pickle.loads(malicious)  # the attack works with the standard unpickler
    assert marker.exists()
    marker.unlink()
    message = "(it refers to posix.system, which is not allowed; none of its code was executed)"
    assert message in load_error(tmp_path, malicious)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"cnumpy\nload\n(S'x'\ntR.", "numpy.load"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"not a pickle", "none of its code was executed"),
        (b"", "none of its code was executed"),
        (pickle.dumps([1, 2]), "no uint8 array"),
        (pickle.dumps({b"data": np.zeros((2, 9), np.uint8)}), "no uint8 array"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.int64)}), "no uint8 array"),
        (pickle.dumps({b"data": np.array([os], dtype=object).astype(str)}), "no uint8 array"),
    ],
)
def test_other_pickles_are_rejected(tmp_path: Path, data: bytes, message: str) -> None:
    assert message in load_error(tmp_path, data)


U1 = np.dtype("u1")
RECONSTRUCT = np.zeros(1, np.uint8).__reduce__()[0]
FROM_BUFFER = np.zeros(1, np.uint8).__reduce_ex__(5)[0]


def dtype(*state: object) -> Reduced:
    """Return a u1 dtype whose state is set by the pickle."""
    return Reduced(np.dtype, ("u1", False, True), state)


def array(shape: object, kind: object, data: object) -> Reduced:
    return Reduced(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, shape, kind, False, data))


# An item size of 1 GiB: reads memory behind the array.
OVERSIZED = dtype(3, "|", (U1, (1 << 30,)), None, None, 1 << 30, 1, 0)


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize(
    "payload",
    [
        array((1, 3072), OVERSIZED, b"x"),
        array((1, 3072), dtype(3, "|", None, ("a", "b"), {"a": 7}, 8, 1, 63), b"x"),
        array((1, 3072), dtype(-1), b"x" * 3071),
        array((1, -3072), U1, b"x" * 3072),
        array((1 << 62, 3072), U1, b""),
        array(3072, U1, b"x" * 3072),
        array((1, 3072), U1, ["x"] * 3072),
        array((1, 3072), np.dtype("O"), [os.getcwd] * 3072),
        Reduced(FROM_BUFFER, (b"x", OVERSIZED, (1, 3072), "C")),
        Reduced(
            FROM_BUFFER, (b"x" * 3072, U1, (1, 3072), "C"), (1, (1, 3072), OVERSIZED, False, b"x")
        ),
        Reduced(FROM_BUFFER, (b"x" * 3072, U1, (2, 3072), "C")),
        Reduced(np.ndarray, ((1 << 40, 3072), U1)),
    ],
)
def test_array_whose_bytes_do_not_match_is_rejected(
    tmp_path: Path, payload: Reduced, protocol: int
) -> None:
    load_error(tmp_path, pickle.dumps({b"data": payload}, protocol))


def test_state_of_a_dtype_is_ignored(tmp_path: Path) -> None:
    """The bytes match the shape, so the array is read as uint8 whatever the state."""
    for seed, kind in enumerate((OVERSIZED, dtype(None), dtype())):
        path = tmp_path / f"data_batch_{seed}"
        path.write_bytes(pickle.dumps({b"data": array((1, 3072), kind, b"x" * 3072)}))
        assert np.array_equal(load_python(str(path)), np.full((1, 3072), ord("x"), np.uint8))


@pytest.mark.parametrize("name", [b"cnumpy\ndtype\n", b"c_codecs\nencode\n", b"cnumpy\nndarray\n"])
@pytest.mark.parametrize("state", [b"}S'x'\nI1\ns", b"N}S'__defaults__'\nI1\ns\x86"])
def test_allowed_globals_cannot_be_modified(tmp_path: Path, name: bytes, state: bytes) -> None:
    assert "sets the state of an object without state" in load_error(tmp_path, name + state + b"b.")


def test_nested_tuples_do_not_crash_the_process(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02})" + b"\x85" * 3_000_000 + b"K\x01s.")
    code = "import sys; from shards.sources.cifar10 import load_python; load_python(sys.argv[1])"
    # In a separate process, because it may crash.
    command = [sys.executable, "-c", code, str(tmp_path / "data_batch_1")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "it has too many tuples" in done.stderr
