"""Tests of tar_stream: listing tars, detecting truncation, and decoding samples."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from shards.color import pack, rgb_to_lab
from shards.errors import UserError
from shards.read.tar_stream import TarStream, list_tars, stored_sample
from shards.sources.decode import UndecodableError
from tests.support.photographs import encode, photograph

SIZE = 16
RGB = photograph("coffee")[:SIZE, :SIZE]


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(3):
            info = tarfile.TarInfo(f"{number}.bin")
            info.size = 600 * number
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def read_all(path: Path, chunk: int) -> TarStream:
    stream = TarStream(str(path))
    while stream.read(chunk):
        pass
    stream.close()
    return stream


def test_list_tars_expands_braces_and_wildcards(tmp_path: Path) -> None:
    for name in ("00.tar", "01.tar", "b.tar"):
        (tmp_path / name).touch()
    paths = tuple(str(tmp_path / name) for name in ("00.tar", "01.tar", "b.tar"))
    assert list_tars(f"{tmp_path}/*.tar") == paths
    assert list_tars(f"{tmp_path}/{{00..01}}.tar") == paths[:2]
    with pytest.raises(UserError, match=r"no file .*02.tar"):
        list_tars(f"{tmp_path}/{{00..02}}.tar")


@pytest.mark.parametrize("chunk", [1, 511, 512, 10_240])
def test_complete_tar_passes_for_any_chunk_size(tar: Path, chunk: int) -> None:
    read_all(tar, chunk).check_complete()


@pytest.mark.parametrize(
    ("length", "offset"), [(0, 0), (300, 0), (512, 512), (1300, 1300), (1536, 1536), (3584, 3584)]
)
def test_truncated_tar_raises_with_the_offset(tar: Path, length: int, offset: int) -> None:
    tar.write_bytes(tar.read_bytes()[:length])
    with pytest.raises(UserError, match=rf"0.tar is damaged or cut short at byte {offset}:"):
        read_all(tar, 100).check_complete()


def test_damaged_header_raises_with_its_offset(tar: Path) -> None:
    data = bytearray(tar.read_bytes())
    data[512 + 3] ^= 1
    tar.write_bytes(data)
    with pytest.raises(UserError, match="damaged or cut short at byte 512:"):
        read_all(tar, 10_240).check_complete()


def test_array_is_returned_unchanged_and_preferred_to_an_image() -> None:
    stored = pack(rgb_to_lab(RGB))
    stream = io.BytesIO()
    np.save(stream, stored)
    members = {"png": encode(255 - RGB), "lab.npy": stream.getvalue()}
    assert np.array_equal(stored_sample(members, SIZE), stored)  # type: ignore[arg-type]
    with pytest.raises(UndecodableError, match="another size"):
        stored_sample(members, SIZE + 1)


def test_image_is_converted_to_packed_lab() -> None:
    sample = stored_sample({"__key__": b"0", "png": encode(RGB)}, SIZE)
    assert sample is not None
    assert np.array_equal(sample, pack(rgb_to_lab(RGB)))


def test_sample_without_image_or_array_is_none() -> None:
    assert stored_sample({"txt": b"a caption"}, SIZE) is None
