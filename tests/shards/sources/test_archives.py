"""Tests of archives: all members of a tar, or an error with the damaged offset."""

import io
import tarfile
from pathlib import Path

import pytest

from shards.errors import UserError
from shards.sources.archives import NO_CONTENT, members
from shards.sources.listing import open_sources, read_bytes
from tests.support.photographs import encode, pack_folder, random_crops


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as archive:
        for number, crop in enumerate(random_crops(4)):
            add(archive, f"{number}.png", encode(crop))
    return path


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(data))


def test_complete_tar_is_accepted_with_any_padding(tar: Path) -> None:
    data = tar.read_bytes()
    with tarfile.open(tar) as archive:
        expected = [(each.name, each.offset_data, each.size) for each in archive]
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    for length in (end + 1024, len(data), len(data) + 12345):
        tar.write_bytes(data.ljust(length, b"\0")[:length])
        assert members(tar) == expected


def header_offset(tar: Path, index: int) -> int:
    with tarfile.open(tar) as archive:
        return archive.getmembers()[index].offset


def end_offset(tar: Path) -> int:
    with tarfile.open(tar) as archive:
        archive.getmembers()
        return archive.offset


@pytest.mark.parametrize("index", [1, 2, 3])
def test_damaged_header_raises_with_its_offset(tar: Path, index: int) -> None:
    offset = header_offset(tar, index)
    data = bytearray(tar.read_bytes())
    data[offset + 5] ^= 1
    tar.write_bytes(data)
    with pytest.raises(UserError, match=rf"photos.tar is damaged or cut short at byte {offset}:"):
        open_sources(str(tar), Path("/nonexistent"))


def test_tar_cut_short_anywhere_raises(tar: Path) -> None:
    data, third, end = tar.read_bytes(), header_offset(tar, 2), end_offset(tar)
    for length in (
        third - 1,
        third,
        third + 1,
        third + 511,
        third + 512,
        third + 700,
        end,
        end + 512,
        end + 1023,
    ):
        tar.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"damaged or cut short at byte \d+: restore it"):
            members(tar)


def test_data_after_the_end_of_the_tar_raises(tar: Path) -> None:
    data = tar.read_bytes()
    tar.write_bytes(data + data)
    with pytest.raises(UserError, match=rf"damaged or cut short at byte {len(data)}:"):
        members(tar)
    tar.write_bytes(data[: end_offset(tar) + 512] + b"x" * 9728)
    with pytest.raises(UserError, match="damaged or cut short"):
        members(tar)


def test_links_are_resolved_and_special_files_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "a", type=tarfile.DIRTYPE)
        add(archive, "a/ahead.png", type=tarfile.SYMTYPE, linkname="../b/photo.png")
        add(archive, "b/photo.png", encode(next(random_crops(1))))
        add(archive, "hard.png", type=tarfile.LNKTYPE, linkname="b/photo.png")
        add(archive, "a/twice.png", type=tarfile.SYMTYPE, linkname="../hard.png")
        add(archive, "nowhere.png", type=tarfile.SYMTYPE, linkname="/etc/photo.png")
        add(archive, "loop.png", type=tarfile.SYMTYPE, linkname="loop.png")
        add(archive, "pipe.png", type=tarfile.FIFOTYPE)
    found = {each.name: each.offset for each in members(path)}
    assert {name for name, offset in found.items() if offset == NO_CONTENT} == {
        "nowhere.png",
        "loop.png",
        "pipe.png",
    }
    listing = open_sources(str(path), Path("/nonexistent"))
    read = [
        read_bytes(source, 1 << 20) for source in listing.sources if source.offset != NO_CONTENT
    ]
    assert read == [encode(next(random_crops(1)))] * 4
    result = pack_folder(path, tmp_path / "out")
    assert (result.num_packed, result.manifest.left_out) == (1, {"duplicate": 3, "unreadable": 3})
    assert (
        "link whose target is not a file in its tar"
        in (tmp_path / "out" / "left_out.tsv").read_text()
    )
