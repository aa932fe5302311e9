"""CIFAR-10's two layouts give the same pictures, and a pickle gets nothing run."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from shards.cifar import load_python
from shards.errors import UserError
from shards.format import load_manifest
from shards.lab import lab_to_rgb, unpack
from shards.tars import pixels_view
from tests.shards.pictures import fingerprint, pack_folder, pieces

BATCHES = ("data_batch_1", "data_batch_2", "test_batch")


def rows(seed: int, count: int = 20) -> np.ndarray:
    planes = [piece.transpose(2, 0, 1) for piece in pieces(3 * count, 32)]
    return np.stack(planes[seed * count : (seed + 1) * count]).reshape(count, -1)


def make_binary(folder: Path) -> Path:
    folder.mkdir()
    for seed, name in enumerate(BATCHES):
        np.insert(rows(seed), 0, seed, 1).tofile(folder / f"{name}.bin")
    return folder


def make_python(folder: Path, protocol: int = 2) -> Path:
    folder.mkdir()
    for seed, name in enumerate(BATCHES):
        batch = {b"batch_label": b"x", b"labels": [seed] * 20, b"data": rows(seed), b"filenames": [b"a.png"] * 20}
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    return folder


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    folder = make_python(tmp_path / "cifar", protocol)
    assert np.array_equal(load_python(str(folder / "data_batch_1")), rows(0))


def test_a_python_2_pickle_as_published_is_read(tmp_path: Path) -> None:
    # What Python 2's cPickle wrote, opcode by opcode: str keys, ints where numpy now has booleans, pixels as str.
    pixels = rows(0, 2).tobytes()
    data = (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + len(pixels).to_bytes(4, "little")
        + pixels
        + b"tbs."
    )
    (tmp_path / "data_batch_1").write_bytes(data)
    assert np.array_equal(load_python(str(tmp_path / "data_batch_1")), rows(0, 2))


def test_both_layouts_give_the_same_shards_with_their_own_splits(tmp_path: Path) -> None:
    make_binary(tmp_path / "bin")
    make_python(tmp_path / "py")
    for name in ("bin", "py"):
        pack_folder(tmp_path / name, tmp_path / f"{name}-shards", splits="source")
    manifest = load_manifest(tmp_path / "bin-shards")
    assert {split: manifest.samples(split) for split in manifest.splits} == {"train": 40, "test": 20}
    tars = [
        {k: v for k, v in fingerprint(tmp_path / f"{n}-shards").items() if k.endswith("tar")} for n in ("bin", "py")
    ]
    assert tars[0] == tars[1]
    assert {Path(k).parts[0] for k in tars[0]} == {"train", "test"}


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    make_binary(tmp_path / "bin")
    pack_folder(str(tmp_path / "bin" / "test_batch.bin"), tmp_path / "out", shard_size=20)
    shard = load_manifest(tmp_path / "out").splits["all"][0]
    stored = pixels_view(tmp_path / "out" / shard.path, 20, 32, "uint8")
    found = sorted(lab_to_rgb(unpack(each)).mean() for each in stored)
    np.testing.assert_allclose(found, np.sort(rows(2).mean(1)), atol=1)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/colortrain-was-here",)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Evil()),
        pickle.dumps({b"data": Evil()}),
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"not a pickle",
        b"",
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": np.zeros((2, 9), np.uint8)}),
        pickle.dumps({b"data": np.array([os], dtype=object).astype(str)}),
    ],
)
def test_any_other_pickle_is_refused_and_nothing_runs(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "system", lambda command: pytest.fail(command))
    (tmp_path / "data_batch_1").write_bytes(data)
    with pytest.raises(UserError, match="is not CIFAR-10's python layout"):
        load_python(str(tmp_path / "data_batch_1"))
