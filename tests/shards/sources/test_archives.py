"""A tar of images gives all its images, or says at which byte it is damaged."""

import io
import tarfile
from pathlib import Path

import pytest

from shards.errors import UserError
from shards.sources.archives import NOWHERE, members
from shards.sources.listing import open_sources, read_bytes
from tests.support.photographs import encode, pack_folder, random_crops


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as archive:
        for number, piece in enumerate(random_crops(4)):
            add(archive, f"{number}.png", encode(piece))
    return path


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(data))


def test_a_whole_tar_is_taken_whatever_its_padding(tar: Path) -> None:
    data = tar.read_bytes()
    with tarfile.open(tar) as archive:
        expected = [(each.name, each.offset_data, each.size) for each in archive]
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    for length in (end + 1024, len(data), len(data) + 12345):
        tar.write_bytes(data.ljust(length, b"\0")[:length])
        assert members(tar) == expected


def header_of(tar: Path, place: int) -> int:
    with tarfile.open(tar) as archive:
        return archive.getmembers()[place].offset


def end_of(tar: Path) -> int:
    with tarfile.open(tar) as archive:
        archive.getmembers()
        return archive.offset


@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_damaged_header_is_an_error_at_its_byte(tar: Path, place: int) -> None:
    where = header_of(tar, place)
    data = bytearray(tar.read_bytes())
    data[where + 5] ^= 1
    tar.write_bytes(data)
    with pytest.raises(UserError, match=rf"photos.tar is damaged or cut short at byte {where}:"):
        open_sources(str(tar), Path("/nonexistent"))


def test_a_tar_cut_short_anywhere_is_an_error(tar: Path) -> None:
    data, third, end = tar.read_bytes(), header_of(tar, 2), end_of(tar)
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


def test_a_second_tar_behind_the_first_is_not_lost_in_silence(tar: Path) -> None:
    data = tar.read_bytes()
    tar.write_bytes(data + data)
    with pytest.raises(UserError, match=rf"damaged or cut short at byte {len(data)}:"):
        members(tar)
    tar.write_bytes(data[: end_of(tar) + 512] + b"x" * 9728)
    with pytest.raises(UserError, match="damaged or cut short"):
        members(tar)


def test_links_give_what_they_lead_to_and_others_are_listed(tmp_path: Path) -> None:
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
    assert {name for name, offset in found.items() if offset == NOWHERE} == {
        "nowhere.png",
        "loop.png",
        "pipe.png",
    }
    listing = open_sources(str(path), Path("/nonexistent"))
    read = [read_bytes(source, 1 << 20) for source in listing.sources if source.offset != NOWHERE]
    assert read == [encode(next(random_crops(1)))] * 4
    outcome = pack_folder(path, tmp_path / "out")
    assert (outcome.num_packed, outcome.manifest.left_out) == (1, {"duplicate": 3, "unreadable": 3})
    assert "link to no file of its tar" in (tmp_path / "out" / "left_out.tsv").read_text()
