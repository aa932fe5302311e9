"""Tests of index: rows match the tars; damaged tars and indexes are rejected."""

import hashlib
import io
import shutil
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.errors import UserError
from shards.format.index import load_index, rebuild_index, write_index
from shards.format.manifest import Manifest, Shard, load_manifest
from tests.support.photographs import encode, make_folder, pack_folder, random_crops


@pytest.fixture(scope="module", params=["uint8", "float16"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_folder(tmp_path_factory.mktemp("photos"), 20)
    (folder / "copy.png").write_bytes((folder / "class1" / "photo 001.png").read_bytes())
    out = tmp_path_factory.mktemp("built") / "out"
    result = pack_folder(
        folder, out, size=16, dtype=request.param, splits="train=.7,val=.3", shard_size=5
    )
    assert result.manifest.left_out == {"duplicate": 1}
    return out


def rebuild(root: Path, split: str, shards: tuple[Shard, ...] | None = None) -> np.ndarray:
    manifest = load_manifest(root)
    named = shards or manifest.splits[split]
    return rebuild_index(
        [root / shard.path for shard in named], named, manifest.size, manifest.dtype
    )


def read_with_tarfile(root: Path, manifest: Manifest, split: str) -> list[tuple[int, int, int]]:
    rows = []
    for shard in manifest.splits[split]:
        with tarfile.open(root / shard.path) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                assert stream
                pixels = np.load(io.BytesIO(stream.read())).tobytes()
                rows.append(
                    (int(member.name.partition(".")[0]), member.offset_data, zlib.crc32(pixels))
                )
    return rows


def test_rows_match_what_tarfile_reads(built: Path) -> None:
    manifest = load_manifest(built)
    for split in ("train", "val"):
        table = load_index(built / split / "index.npy", manifest.samples(split))
        assert [tuple(row) for row in table.tolist()] == read_with_tarfile(built, manifest, split)


def test_index_rebuilt_from_the_tars_equals_the_built_one(built: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_index(tmp_path / split, rebuild(built, split))
        assert (tmp_path / split).read_bytes() == (built / split / "index.npy").read_bytes()


def test_empty_split_has_an_empty_index(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, crop in enumerate(random_crops(2)):
        (tmp_path / "photos" / f"{number}.png").write_bytes(encode(crop))
    pack_folder(tmp_path / "photos", tmp_path / "out", splits="train=.999999,val=.000001")
    assert load_index(tmp_path / "out" / "val" / "index.npy", 0).shape == (0, 3)
    assert rebuild(tmp_path / "out", "val").shape == (0, 3)


def flipped(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


@pytest.mark.parametrize(
    ("damage", "update_manifest", "message"),
    [
        (lambda data: data[:-512], False, r"has \d+ bytes, but the manifest says \d+"),
        (lambda data: flipped(data, 900), False, "is damaged, its SHA-256 is not the one in the"),
        (lambda data: flipped(data, 3), True, "no sample of 16 pixels at byte 512"),
        (lambda data: flipped(data, 120), True, "no sample of 16 pixels at byte 512"),
        (lambda data: flipped(data, 512 + 7), True, "no sample of 16 pixels at byte 512"),
        (lambda data: data[:700], True, r"samples should take \d+ bytes, it says 700\): build"),
    ],
)
def test_error_names_a_tar_that_does_not_match_the_manifest(
    built: Path,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    update_manifest: bool,
    message: str,
) -> None:
    """`update_manifest` makes size and SHA-256 match: only the members differ."""
    out = Path(shutil.copytree(built, tmp_path / "out"))
    first, *rest = load_manifest(out).splits["train"]
    data = damage((out / first.path).read_bytes())
    (out / first.path).write_bytes(data)
    if update_manifest:
        first = replace(first, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(UserError, match=message) as caught:
        rebuild(out, "train", (first, *rest))
    assert str(out / first.path) in str(caught.value)


def test_error_names_a_missing_tar(built: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(built, tmp_path / "out"))
    (out / "train" / "000001.tar").unlink()
    with pytest.raises(UserError, match=r"train/000001.tar is in the manifest but missing"):
        rebuild(out, "train")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "is missing"),
        (np.zeros((4, 2), np.int64), "does not belong to this manifest"),
        (np.zeros((4, 3), np.int32), "does not belong to this manifest"),
        (np.zeros((3, 3), np.int64), "does not belong to this manifest"),
        (np.array([[None] * 3] * 4), "is damaged"),
        (b"", "is damaged"),
        (b"\x93NUMPY\x01\x00", "is damaged"),
    ],
)
def test_invalid_index_raises_a_one_line_error(
    tmp_path: Path, table: np.ndarray | bytes | None, message: str
) -> None:
    path = tmp_path / "index.npy"
    if isinstance(table, bytes):
        path.write_bytes(table)
    elif table is not None:
        np.save(path, table)
    with pytest.raises(UserError, match=message) as caught:
        load_index(path, 4)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_older_format_raises_and_suggests_to_build_again(built: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(built, tmp_path / "out"))
    text = (out / "manifest.json").read_text()
    (out / "manifest.json").write_text(text.replace("colortrain-shards-2", "colortrain-shards-1"))
    with pytest.raises(
        UserError,
        match=r"format 'colortrain-shards-1', this version reads .*-2': build the shard set",
    ):
        load_manifest(out)
