"""Tests of build: complete and reproducible shard sets that other readers can read."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from shards.errors import UserError, run_command
from shards.files import open_atomic
from shards.format.manifest import load_manifest
from shards.format.tar_layout import read_pixels
from shards.inspect.verify import verify
from tests.support.photographs import (
    encode,
    fingerprint,
    make_folder,
    pack_folder,
    photograph,
)

SPLITS = "train=.7,val=.3"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("photos"), 40)


@pytest.fixture(scope="module")
def built(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "out"
    pack_folder(photos, out, splits=SPLITS)
    return out


def entries(root: Path) -> dict[str, dict[str, object]]:
    lines = [
        line
        for path in sorted((root / "sources").iterdir())
        for line in path.read_text().splitlines()[1:]
    ]
    return {str(entry["source"]): entry for entry in map(json.loads, lines)}


@pytest.mark.parametrize("workers", [2, 3])
def test_bytes_do_not_depend_on_the_number_of_workers(
    photos: Path, built: Path, tmp_path: Path, workers: int
) -> None:
    pack_folder(photos, tmp_path / "out", workers=workers, splits=SPLITS)
    assert fingerprint(tmp_path / "out") == fingerprint(built)


def test_bytes_do_not_depend_on_the_folder(photos: Path, built: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "moved")
    pack_folder(tmp_path / "moved", tmp_path / "moved" / "out", splits=SPLITS)
    assert fingerprint(tmp_path / "moved" / "out") == fingerprint(built)


def test_every_image_is_packed_once_in_one_split(photos: Path, built: Path) -> None:
    manifest = load_manifest(built)
    keys = [np.load(built / split / "index.npy")[:, 0] for split in ("train", "val")]
    assert [len(each) for each in keys] == [manifest.samples("train"), manifest.samples("val")]
    assert min(map(len, keys)) > 5
    assert sorted(np.concatenate(keys)) == list(range(40))
    assert set(entries(built)) == {str(path.relative_to(photos)) for path in photos.rglob("photo*")}
    assert not list(built.rglob("*.tmp"))


def test_samples_equal_scikit_image_within_quantisation(
    photos: Path, built: Path, tmp_path: Path
) -> None:
    pack_folder(photos, tmp_path / "exact", size=48, dtype="float16", shard_size=40)
    (view,) = read_pixels(tmp_path / "exact" / "000000.tar", 40, 48, "float16", chunk=40)
    for name, entry in entries(tmp_path / "exact").items():
        image = np.asarray(Image.open(photos / name))
        lab = rgb2lab(image).transpose(2, 0, 1)
        assert np.abs(view[int(str(entry["key"]))] - lab).max() <= 2**-5 + 1e-3


def test_splits_do_not_depend_on_the_image_size(photos: Path, built: Path, tmp_path: Path) -> None:
    pack_folder(photos, tmp_path / "out", size=24, fit="pad", splits=SPLITS)
    splits = [
        {name: entry["split"] for name, entry in entries(root).items()}
        for root in (built, tmp_path / "out")
    ]
    assert splits[0] == splits[1]


def test_webdataset_reads_all_samples(built: Path) -> None:
    import webdataset

    tars = sorted(str(path) for path in (built / "train").glob("*.tar"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    table = np.load(built / "train" / "index.npy")
    assert [int(sample["__key__"]) for sample in samples] == table[:, 0].tolist()
    views = [
        pixels
        for s in load_manifest(built).splits["train"]
        for pixels in read_pixels(built / s.path, s.samples, 32, "uint8", chunk=7)
    ]
    assert np.array_equal([sample["lab.npy"] for sample in samples], np.concatenate(views))


def test_tar_extracts_and_dali_index_has_the_array_offsets(built: Path, tmp_path: Path) -> None:
    path = sorted((built / "train").glob("*.tar"))[0]
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        archive.extractall(tmp_path, filter="data")
    assert {member.mtime for member in members} == {0}
    version, *lines = path.with_suffix(".idx").read_text().splitlines()
    assert version == f"v1.2 {len(members)}"
    data = path.read_bytes()
    for member, line in zip(members, lines, strict=True):
        extension, offset, size, name = line.split()
        assert (extension, name, int(offset)) == ("lab.npy", member.name, member.offset_data)
        array = np.load(io.BytesIO(data[int(offset) : int(offset) + int(size)]))
        assert array.shape == (3, 32, 32)
        assert np.array_equal(array, np.load(tmp_path / name))


def test_building_does_not_import_torch(
    photos: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ModuleNotFoundError('no torch here')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    command = [sys.executable, "-m", "shards", "build", str(photos), str(tmp_path / "out")]
    command += ["--size", "32", "--splits", SPLITS, "--workers", "2"]
    subprocess.run(command, check=True, capture_output=True)
    assert fingerprint(tmp_path / "out") == fingerprint(built)


def test_finished_set_is_unchanged_and_a_damaged_one_is_repaired(
    photos: Path, built: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    pack_folder(photos, out, splits=SPLITS)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")} == before
    damaged = sorted(before)[3]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    sorted(before)[5].with_suffix(".idx").unlink()
    pack_folder(photos, out, splits=SPLITS)
    assert fingerprint(out) == fingerprint(built)


def test_other_parameters_or_sources_raise_and_change_nothing(
    photos: Path, built: Path, tmp_path: Path
) -> None:
    before = fingerprint(built)
    with pytest.raises(UserError, match=r"holds another build .size was 32, is now 16"):
        pack_folder(photos, built, size=16, splits=SPLITS)
    with pytest.raises(UserError, match="its source files are different"):
        pack_folder(make_folder(tmp_path, 40, 32) / "class0", built, splits=SPLITS)
    assert fingerprint(built) == before


def test_strict_build_raises_until_the_source_is_repaired(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", 5)
    bad = folder / "bad.jpg"
    bad.write_bytes(b"broken")
    with pytest.raises(
        UserError, match=r"1 of 6 images cannot be packed, first 'bad.jpg' .unreadable"
    ):
        pack_folder(folder, tmp_path / "out", strict=True)
    assert not (tmp_path / "out" / "manifest.json").exists()
    bad.write_bytes(encode(photograph()))
    assert pack_folder(folder, tmp_path / "out", strict=True).manifest.left_out == {}


@pytest.mark.parametrize("workers", [1, 2])
def test_full_disk_gives_a_one_line_error_and_the_build_resumes(
    photos: Path, built: Path, tmp_path: Path, workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """`ulimit -f` makes a write fail in the middle of a shard."""
    out = tmp_path / "out"
    command = f"ulimit -f 8; exec {sys.executable} -m shards build '{photos}' '{out}'"
    options = f"--size 32 --splits {SPLITS} --workers {workers} --shard-size 20"
    status = os.waitstatus_to_exitcode(os.system(f"{command} {options}"))
    error = capfd.readouterr().err
    assert status == 2
    assert "Traceback" not in error
    assert error.count("colortrain shards: error: File too large at") == 1
    assert not (out / "manifest.json").exists()
    assert not list(out.rglob("*.tmp"))
    pack_folder(photos, out, workers=workers, splits=SPLITS, shard_size=20)
    verify(out, quiet=True)


def test_error_without_space_leaves_no_partial_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(argv: object) -> int:
        with open_atomic(tmp_path / "file") as stream:
            stream.write(b"x")
            raise OSError(errno.ENOSPC, "No space left on device")

    assert run_command("shards", fill) == 2
    assert capsys.readouterr().err == (
        f"colortrain shards: error: No space left on device at {tmp_path / 'file'}: "
        "free some space, then run the same command again (finished work is kept)\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_unreadable_image_is_packed_after_repair(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", 12)
    bad = folder / "bad.jpg"
    bad.write_bytes(b"broken")
    assert pack_folder(folder, tmp_path / "out").manifest.left_out == {"unreadable": 1}
    before = fingerprint(tmp_path / "out")
    pack_folder(folder, tmp_path / "out")
    assert fingerprint(tmp_path / "out") == before
    bad.write_bytes(encode(photograph()))
    assert pack_folder(folder, tmp_path / "out").manifest.left_out == {}
    pack_folder(folder, tmp_path / "new")
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "new")
