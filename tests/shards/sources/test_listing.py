"""Tests of listing: every kind of source lists its images and nothing outside of it."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from shards.builder.build import BuildOptions, build
from shards.builder.plan import Parameters
from shards.errors import UserError
from shards.sources.listing import ImageSource, Listing, open_sources, read_bytes
from tests.support.photographs import encode, make_folder, pack_folder, photograph

ELSEWHERE = Path("/nonexistent")


def names(listing: Listing) -> list[str]:
    return [source.name for source in listing.sources]


def contents(listing: Listing) -> list[bytes]:
    return [read_bytes(source, 1 << 20) for source in listing.sources]


def test_folder_is_listed_in_sorted_order(tmp_path: Path) -> None:
    make_folder(tmp_path, 5)
    (tmp_path / "notes.txt").write_text("no image")
    listing = open_sources(str(tmp_path), ELSEWHERE)
    assert names(listing) == sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("photo*"))
    assert listing.ignored == ["notes.txt"]
    assert names(open_sources(f"{tmp_path}/", ELSEWHERE)) == names(listing)
    assert contents(listing) == [(tmp_path / name).read_bytes() for name in names(listing)]


def test_out_inside_source_is_not_listed(tmp_path: Path) -> None:
    make_folder(tmp_path, 3)
    make_folder(tmp_path / "out" / "deeper", 2)
    assert len(open_sources(str(tmp_path), tmp_path / "out").sources) == 3


def test_links_to_files_and_folders_are_followed_but_loops_are_not(tmp_path: Path) -> None:
    make_folder(tmp_path / "other", 2)
    source = make_folder(tmp_path / "source", 3)
    (source / "one.jpg").symlink_to(tmp_path / "other" / "class0" / "photo 000.jpg")
    (source / "outside").symlink_to(tmp_path / "other")
    (source / "again").symlink_to(tmp_path / "other")
    (source / "loop").symlink_to(source)
    (source / "above").symlink_to(tmp_path)
    (source / "inside").symlink_to(source / "class1")
    found = names(open_sources(str(source), ELSEWHERE))
    assert len(found) == 3 + 1 + 2
    assert {name.split("/")[0] for name in found} == {
        "class0",
        "class1",
        "class2",
        "one.jpg",
        "again",
    }


def test_paths_in_a_text_file_are_relative_to_its_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", 4)
    listed = open_sources(str(folder), ELSEWHERE)
    for ending in ("\n", "\r\n"):
        text = ending.join([*(f"photos/{name}" for name in names(listed)), "", ""])
        (tmp_path / "list.txt").write_bytes(text.encode())
        assert contents(open_sources(str(tmp_path / "list.txt"), ELSEWHERE)) == contents(listed)


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
        (b"", "utf-8"),
    ],
    ids=["UTF-8 with a mark", "UTF-16", "UTF-16, big-endian", "UTF-8"],
)
def test_text_files_of_windows_lose_no_line(tmp_path: Path, mark: bytes, encoding: str) -> None:
    """Byte-order marks, blanks around paths, empty lines, and any line ending."""
    expected = []
    for name in ("first \u00e9.jpg", "second.jpg", "third.jpg "):
        (tmp_path / name).write_bytes(encode(photograph()[:9, :9], "JPEG"))
        expected.append((tmp_path / name).read_bytes())
    text = "first \u00e9.jpg \t\r\n\r\n  second.jpg\nthird.jpg "
    (tmp_path / "list.txt").write_bytes(mark + text.encode(encoding))
    listing = open_sources(str(tmp_path / "list.txt"), ELSEWHERE)
    assert names(listing) == ["first \u00e9.jpg", "second.jpg", "third.jpg "]
    assert contents(listing) == expected


HIDDEN = ("._one.jpg", ".thumbnails/", "@eaDir/", "a/.hidden.png", "a/@eaDir/", "a/@Recycle/")


def test_hidden_files_and_thumbnails_of_network_drives_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_folder(tmp_path / ".photos" / "@eaDir", 3)  # only names below SOURCE count
    for name in HIDDEN:
        path = source / (f"{name}IMG_1.jpg/SYNOPHOTO_THUMB_M.jpg" if name.endswith("/") else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(photograph()[:40, :40], "JPEG"))
    listing = open_sources(str(source), ELSEWHERE)
    assert len(listing.sources) == 3
    assert listing.hidden == sorted(HIDDEN)
    assert listing.ignored == []
    build(str(source), Parameters(size=32), BuildOptions(out=tmp_path / "out"))
    assert "thumbnails, left out: 6 (._one.jpg, .thumbnails/, @eaDir/, " in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no images in .* except hidden ones: \.hidden\.png"):
        open_sources(str(source / "a"), ELSEWHERE)


def test_hidden_members_of_a_tar_are_left_out_and_named(tmp_path: Path) -> None:
    image = encode(photograph()[:9, :9], "JPEG")
    with tarfile.open(tmp_path / "mac.tar", "w") as archive:
        for name in ("./a/one.jpg", "./a/._one.jpg", "__MACOSX/a/one.jpg", "./a/notes.txt"):
            member = tarfile.TarInfo(name)
            member.size = len(image)
            archive.addfile(member, io.BytesIO(image))
    listing = open_sources(str(tmp_path / "mac.tar"), ELSEWHERE)
    assert names(listing) == ["mac.tar!./a/one.jpg"]
    assert listing.hidden == ["mac.tar!./a/._one.jpg", "mac.tar!__MACOSX/a/one.jpg"]
    assert listing.ignored == ["mac.tar!./a/notes.txt"]


def test_a_folder_that_cannot_be_read_is_one_unreadable_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "photos", 3)
    (folder / "private").mkdir()
    scan = os.scandir

    def refuse(path: str | Path) -> object:
        if str(path).endswith("private"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = pack_folder(folder, tmp_path / "out")
    assert (result.num_packed, result.manifest.left_out) == (3, {"unreadable": 1})
    assert (tmp_path / "out" / "left_out.tsv").read_text().startswith("private/\tunreadable\t")


def make_tars(folder: Path, out: Path) -> None:
    out.mkdir()
    for number, path in enumerate(sorted(folder.rglob("photo*"), key=lambda path: path.name)):
        with tarfile.open(out / f"{number % 2:05d}.tar", "a") as archive:
            archive.add(path, f"{number:09d}{path.suffix}")
            archive.add(__file__, f"{number:09d}.json")


@pytest.mark.parametrize("pattern", ["*.tar", "{00000..00001}.tar"])
def test_tars_written_like_img2dataset_are_listed(tmp_path: Path, pattern: str) -> None:
    folder = make_folder(tmp_path / "photos", 5)
    make_tars(folder, tmp_path / "tars")
    listing = open_sources(str(tmp_path / "tars" / pattern), ELSEWHERE)
    assert names(listing)[:2] == ["00000.tar!000000000.jpg", "00000.tar!000000002.jpg"]
    assert sorted(contents(listing)) == sorted(path.read_bytes() for path in folder.rglob("photo*"))
    assert len(listing.ignored) == 5
    one = open_sources(str(tmp_path / "tars" / "00001.tar"), ELSEWHERE)
    assert names(one) == ["00001.tar!000000001.png", "00001.tar!000000003.png"]


def test_reading_rejects_pipes_and_files_above_the_limit(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(OSError, match="not a regular file"):
        read_bytes(ImageSource("pipe.jpg", str(tmp_path / "pipe.jpg")), 100)
    (tmp_path / "long.jpg").write_bytes(bytes(101))
    with pytest.raises(OSError, match="101 bytes, which is too large"):
        read_bytes(ImageSource("long.jpg", str(tmp_path / "long.jpg")), 100)


def test_truncated_tar_member_raises(tmp_path: Path) -> None:
    make_tars(make_folder(tmp_path / "photos", 1), tmp_path / "tars")
    (source,) = open_sources(str(tmp_path / "tars" / "00000.tar"), ELSEWHERE).sources
    os.truncate(source.path, source.offset + source.size - 1)
    with pytest.raises(OSError, match="ends before the end of the image"):
        read_bytes(source, 1 << 20)


def test_out_is_not_listed_by_a_pattern(tmp_path: Path) -> None:
    make_tars(make_folder(tmp_path / "photos", 4), tmp_path / "tars")
    make_tars(make_folder(tmp_path / "more", 4), tmp_path / "tars" / "out")
    (tmp_path / "link").symlink_to("tars")
    listing = open_sources(str(tmp_path / "tars" / "**" / "*.tar"), tmp_path / "link" / "out")
    assert {source.path for source in listing.sources} == {
        str(tmp_path / "tars" / f"0000{n}.tar") for n in (0, 1)
    }


def test_link_to_itself_is_one_unreadable_image(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", 3)
    (folder / "loop.jpg").symlink_to("loop.jpg")
    listing = open_sources(str(folder), ELSEWHERE)
    assert names(listing)[-1] == "loop.jpg"
    with pytest.raises(OSError, match="symbolic link"):
        read_bytes(listing.sources[-1], 100)
    result = pack_folder(folder, tmp_path / "out")
    assert (result.num_packed, result.manifest.left_out) == (3, {"unreadable": 1})


def test_unusual_file_names_are_preserved(tmp_path: Path) -> None:
    unusual = [
        b"new\nline.jpg",
        b"tab\t.jpg",
        b"not utf-8 \xff.jpg",
        b'"quoted".jpg',
        b" .jpg",
        "ü.JPG".encode(),
    ]
    for name in unusual:
        (tmp_path / os.fsdecode(name)).write_bytes(encode(photograph()[:8, :8], "JPEG"))
    found = [os.fsencode(name) for name in names(open_sources(str(tmp_path), ELSEWHERE))]
    assert sorted(found) == sorted(unusual)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "no such source .*missing"),
        ("empty.txt", b"\n\n", "no images in .*empty.txt"),
        ("binary.bin", b"\0\1", "is not a folder, a .tar, a .parquet or a text file"),
        ("one.jpg", b"x", "is one image: give its folder"),
        ("bad.tar", b"no tar at all" * 100, "is not an uncompressed tar"),
        ("data_batch_1.bin", b"x" * 3074, "not a multiple of 3073"),
    ],
)
def test_invalid_source_raises_a_one_line_error(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        open_sources(str(tmp_path / name), ELSEWHERE)
    assert "\n" not in str(caught.value)


def test_error_for_a_folder_of_tars_suggests_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "00000.tar").touch()
    with pytest.raises(UserError, match="it contains 1 tars, give them as a quoted pattern"):
        open_sources(str(tmp_path), ELSEWHERE)
