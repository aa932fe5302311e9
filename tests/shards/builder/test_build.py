"""What a build leaves on disk: complete, the same for any number of workers and attempts, readable by others."""

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

from shards.builder.plan import load_plan
from shards.builder.records import load_record
from shards.errors import UserError, run_command
from shards.files import open_atomic
from shards.format.manifest import load_manifest
from shards.format.tar_layout import pixels_view
from shards.inspect.verify import verify
from tests.support.photographs import (
    encode,
    fingerprint,
    make_folder,
    pack_folder,
    photograph,
    random_crops,
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
def test_bytes_do_not_depend_on_the_workers(
    photos: Path, built: Path, tmp_path: Path, workers: int
) -> None:
    pack_folder(photos, tmp_path / "out", workers=workers, splits=SPLITS)
    assert fingerprint(tmp_path / "out") == fingerprint(built)


def test_bytes_do_not_depend_on_where_things_lie(photos: Path, built: Path, tmp_path: Path) -> None:
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


def test_samples_are_scikit_images_lab_to_the_quantisation(
    photos: Path, built: Path, tmp_path: Path
) -> None:
    pack_folder(photos, tmp_path / "exact", size=48, dtype="float16", shard_size=40)
    view = pixels_view(tmp_path / "exact" / "000000.tar", 40, 48, "float16")
    for name, entry in entries(tmp_path / "exact").items():
        picture = np.asarray(Image.open(photos / name))
        lab = rgb2lab(picture).transpose(2, 0, 1)
        assert np.abs(view[int(str(entry["key"]))] - lab).max() <= 2**-5 + 1e-3


def test_splits_do_not_depend_on_the_size(photos: Path, built: Path, tmp_path: Path) -> None:
    pack_folder(photos, tmp_path / "out", size=24, fit="pad", splits=SPLITS)
    splits = [
        {name: entry["split"] for name, entry in entries(root).items()}
        for root in (built, tmp_path / "out")
    ]
    assert splits[0] == splits[1]


def test_a_third_partys_webdataset_reads_all(built: Path) -> None:
    import webdataset

    tars = sorted(str(path) for path in (built / "train").glob("*.tar"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    table = np.load(built / "train" / "index.npy")
    assert [int(sample["__key__"]) for sample in samples] == table[:, 0].tolist()
    views = [
        pixels_view(built / s.path, s.samples, 32, "uint8")
        for s in load_manifest(built).splits["train"]
    ]
    assert np.array_equal([sample["lab.npy"] for sample in samples], np.concatenate(views))


def test_tar_extracts_and_the_dali_index_points_at_the_arrays(built: Path, tmp_path: Path) -> None:
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


def test_what_cannot_be_packed_is_listed_with_its_reason(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", 8)
    whole = encode(photograph(), "JPEG")
    (folder / "truncated.jpg").write_bytes(whole[:5000])
    (folder / "text.jpg").write_text("no image")
    (folder / "missing.jpg").symlink_to("nowhere")
    (folder / "tiny.png").write_bytes(encode(photograph()[:15, :200]))
    (folder / "bomb.png").write_bytes(encode(Image.new("1", (2000, 2000))))
    (folder / "grey.png").write_bytes(encode(Image.fromarray(photograph()).convert("L")))
    (folder / "zz\ncopy.png").write_bytes((folder / "class1" / "photo 001.png").read_bytes())
    outcome = pack_folder(folder, tmp_path / "out", drop_grey=True, max_pixels=1_000_000)
    expected = {"unreadable": 3, "too small": 1, "decompression bomb": 1, "grey": 1, "duplicate": 1}
    assert outcome.manifest.left_out == expected
    assert (outcome.num_packed, outcome.num_sources) == (8, 15)
    listed = dict(
        line.split("\t")[:2]
        for line in (tmp_path / "out" / "left_out.tsv").read_text().splitlines()
    )
    assert listed["tiny.png"] == "too small"
    assert listed["missing.jpg"] == "unreadable"
    assert ("zz\\ncopy.png" in listed) != ("class1/photo 001.png" in listed)
    verify(tmp_path / "out", quiet=True)


def test_grey_pictures_stay_unless_told(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", 2)
    (folder / "grey.png").write_bytes(encode(Image.fromarray(photograph()).convert("L")))
    assert pack_folder(folder, tmp_path / "out").num_packed == 3


@pytest.mark.parametrize(("tint", "packed"), [(2, 2), (3, 3)])
def test_a_tint_of_two_levels_is_still_grey(tmp_path: Path, tint: int, packed: int) -> None:
    folder = make_folder(tmp_path / "photos", 2)
    tinted = np.asarray(Image.fromarray(photograph()[:64, :64]).convert("L").convert("RGB")).clip(
        0, 250
    )
    (folder / "tinted.png").write_bytes(encode(tinted + np.array([tint, 0, 1], np.uint8)))
    assert pack_folder(folder, tmp_path / "out", drop_grey=True).num_packed == packed


def test_building_needs_no_torch(
    photos: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ModuleNotFoundError('no torch here')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    command = [
        sys.executable,
        "-m",
        "shards",
        "build",
        photos,
        tmp_path / "out",
        "--size",
        "32",
        "--splits",
        SPLITS,
    ]
    subprocess.run([*map(str, command), "--workers", "2"], check=True, capture_output=True)
    assert fingerprint(tmp_path / "out") == fingerprint(built)


def test_duplicates_are_found_by_bytes_and_by_pixels_whatever_the_workers(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, piece in enumerate(random_crops(12)):
        data = encode(piece)
        (folder / f"{number:02d}.png").write_bytes(data)
        if number < 4:
            (folder / f"{number:02d} copy.png").write_bytes(data)
            (folder / f"{number:02d} saved again.tif").write_bytes(encode(piece, "TIFF"))
    outcomes = [
        pack_folder(folder, tmp_path / str(n), workers=n, shard_size=3, splits=SPLITS)
        for n in (1, 2)
    ]
    assert [outcome.manifest.left_out for outcome in outcomes] == [{"duplicate": 8}] * 2
    assert fingerprint(tmp_path / "1") == fingerprint(tmp_path / "2")
    verify(tmp_path / "1", quiet=True)
    found = entries(tmp_path / "1")
    for number in range(4):
        group = [entry for name, entry in found.items() if name.startswith(f"{number:02d}")]
        packed = [entry for entry in group if "reason" not in entry]
        assert len(packed) == 1
        assert packed[0]["key"] == min(int(str(entry["key"])) for entry in group)
        assert {entry["detail"] for entry in group if "reason" in entry} == {
            f"of {packed[0]['source']}"
        }
    before = fingerprint(tmp_path / "1")
    pack_folder(folder, tmp_path / "1", shard_size=3, splits=SPLITS)
    assert fingerprint(tmp_path / "1") == before


def test_a_finished_set_is_left_alone_and_a_damaged_one_mended(
    photos: Path, built: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    pack_folder(photos, out, splits=SPLITS)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")} == before
    broken = sorted(before)[3]
    broken.write_bytes(broken.read_bytes()[:-1] + b"x")
    sorted(before)[5].with_suffix(".idx").unlink()
    pack_folder(photos, out, splits=SPLITS)
    assert fingerprint(out) == fingerprint(built)


def test_other_parameters_or_sources_are_refused_and_nothing_changes(
    photos: Path, built: Path, tmp_path: Path
) -> None:
    before = fingerprint(built)
    with pytest.raises(UserError, match=r"holds another build .size was 32, is 16"):
        pack_folder(photos, built, size=16, splits=SPLITS)
    with pytest.raises(UserError, match="its source files are not the same"):
        pack_folder(make_folder(tmp_path, 40, 32) / "class0", built, splits=SPLITS)
    assert fingerprint(built) == before


def test_strict_refuses_and_the_mended_source_is_taken(tmp_path: Path) -> None:
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


def test_nothing_packed_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"broken")
    with pytest.raises(UserError, match="1 of 1 images cannot be packed"):
        pack_folder(tmp_path / "photos", tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_line_and_the_build_goes_on_later(
    photos: Path, built: Path, tmp_path: Path, workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """`ulimit -f` makes the kernel itself refuse a write in the middle of a shard, in this process or in a worker."""
    out = tmp_path / "out"
    command = f"ulimit -f 8; exec {sys.executable} -m shards build '{photos}' '{out}' --size 32 --splits {SPLITS}"
    status = os.waitstatus_to_exitcode(os.system(f"{command} --workers {workers} --shard-size 20"))
    error = capfd.readouterr().err
    assert status == 2
    assert "Traceback" not in error
    assert error.count("colortrain shards: error: File too large at") == 1
    assert not (out / "manifest.json").exists()
    assert not list(out.rglob("*.tmp"))
    pack_folder(photos, out, workers=workers, splits=SPLITS, shard_size=20)
    verify(out, quiet=True)


def test_no_space_left_leaves_no_half_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(argv: object) -> int:
        with open_atomic(tmp_path / "file") as stream:
            stream.write(b"x")
            raise OSError(errno.ENOSPC, "No space left on device")

    assert run_command("shards", fill) == 2
    assert capsys.readouterr().err == (
        f"colortrain shards: error: No space left on device at {tmp_path / 'file'}: free some space, then run the same command "
        "again (finished work is kept)\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_records_tell_what_was_read(photos: Path, built: Path) -> None:
    record = load_record(built, load_plan(built), 0)
    entry = record.entries[0]
    assert (entry.width, entry.height) == (48, 48)
    assert entry.sha256 == fingerprint(photos)[entry.source]
