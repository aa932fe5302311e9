"""Tests of parquet: every row gives the bytes that were written."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from shards.errors import UserError
from shards.sources import parquet as reader
from shards.sources.listing import open_sources, read_bytes
from tests.support.dataset_layouts import (
    image_column,
    make_imagenet_hub,
    photographs,
    write_parquet,
)
from tests.support.photographs import make_folder, pack_folder

pyarrow = pytest.importorskip("pyarrow", reason="colortrain[parquet] is not installed")
ELSEWHERE = Path("/nonexistent")


@pytest.mark.parametrize("cache", [0, 1 << 28])
def test_each_row_has_its_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: int
) -> None:
    images = make_imagenet_hub(tmp_path)
    monkeypatch.setattr(reader, "_MAX_CACHE_BYTES", cache)
    listing = open_sources(str(tmp_path), ELSEWHERE)
    assert [read_bytes(each, 1 << 20) for each in listing.sources] == images
    backwards = [read_bytes(each, 1 << 20) for each in reversed(listing.sources)]
    assert backwards == images[::-1]
    assert [each.split for each in listing.sources] == ["test"] * 4 + ["train"] * 24 + [
        "validation"
    ] * 8
    assert listing.ignored == ["README.md"]


def test_row_groups_in_memory_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(write_parquet(tmp_path / "x.parquet", image=image_column(photographs(12))))
    monkeypatch.setattr(reader, "_cache", reader.OrderedDict())
    for row in range(12):
        reader.read_row(path, row, 1 << 20)
    assert len(reader._cache) == 4
    monkeypatch.setattr(reader, "_MAX_CACHE_BYTES", 1)
    reader.read_row(path, 0, 1 << 20)
    assert list(reader._cache) == [(path, 0)]


def test_dataset_is_built_by_several_processes(tmp_path: Path) -> None:
    make_imagenet_hub(tmp_path / "hub")
    result = pack_folder(tmp_path / "hub", tmp_path / "out", workers=2, splits="source")
    manifest = result.manifest
    assert {name: manifest.samples(name) for name in manifest.splits} == {
        "test": 4,
        "train": 24,
        "validation": 8,
    }


def test_files_and_patterns_are_sources(tmp_path: Path) -> None:
    images = make_imagenet_hub(tmp_path)
    for source in ("test-00000-of-00028.parquet", "te*.parquet"):
        listing = open_sources(f"{tmp_path}/data/{source}", ELSEWHERE)
        assert [read_bytes(each, 1 << 20) for each in listing.sources] == images[:4]
        assert listing.sources[0].name == "test-00000-of-00028.parquet#0000000"


def test_tables_next_to_images_are_ignored(tmp_path: Path) -> None:
    make_folder(tmp_path, 3)
    write_parquet(tmp_path / "00000.parquet", url=["https://example.org"])  # as img2dataset writes
    listing = open_sources(str(tmp_path), ELSEWHERE)
    assert len(listing.sources) == 3
    assert listing.ignored == ["00000.parquet"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("data/validation-00003-of-00014-0d7aa6d5a8b6075.parquet", "validation"),
        ("plain_text/test-00000-of-00001.parquet", "test"),
        ("default/train/0000.parquet", "train"),
        ("valid.parquet", "valid"),
        ("0000.parquet", ""),
        ("2195f4ec-b2b4.parquet", ""),
    ],
)
def test_split_is_in_the_name(name: str, split: str) -> None:
    assert reader.split_of(name) == split


def test_columns_of_images(tmp_path: Path) -> None:
    images, others = photographs(6)[:3], photographs(6)[3:]
    mask = image_column(others)
    columns: list[dict[str, Any]] = [
        {"photo": image_column(images), "text": ["a", "b", "c"]},
        {"mask": mask, "image": image_column(images)},
        {"mask": mask, "img": pyarrow.array(images, pyarrow.large_binary())},
    ]
    for number, each in enumerate(columns):
        path = write_parquet(tmp_path / f"{number}.parquet", **each)
        assert [reader.read_row(str(path), row, 1 << 20) for row in range(3)] == images
    for name, each, message in (
        ("text", {"text": ["a"]}, "has no image column; its columns are text: name"),
        ("two", {"a": mask, "b": mask}, r"has several columns with images \(a, b\)"),
    ):
        with pytest.raises(UserError, match=message):
            reader.count(write_parquet(tmp_path / f"{name}.parquet", **each))


def test_rows_without_bytes_or_with_too_many_are_left_out(tmp_path: Path) -> None:
    first, second = photographs(2)
    path = write_parquet(tmp_path / "train.parquet", image=image_column([first, None, second]))
    with pytest.raises(OSError, match=f"{len(first)} bytes, which is too large"):
        reader.read_row(str(path), 0, len(first) - 1)
    result = pack_folder(tmp_path, tmp_path / "out")
    assert (result.num_packed, result.manifest.left_out) == (2, {"unreadable": 1})
    text = (tmp_path / "out" / "left_out.tsv").read_text()
    assert "train.parquet#0000001\tunreadable\tthe row has no bytes of an image" in text


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "cut.parquet", image=image_column(photographs(9)))
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(UserError, match=r"cut.parquet is damaged \(.*\): download it again") as cut:
        open_sources(str(path), ELSEWHERE)
    assert "\n" not in str(cut.value)
    broken = tmp_path / "broken.parquet"  # the footer is intact
    broken.write_bytes(data[:4] + bytes(3000) + data[3004:])
    listing = open_sources(str(broken), ELSEWHERE)
    with pytest.raises(OSError, match=r"\w"):
        read_bytes(listing.sources[0], 1 << 20)
    assert read_bytes(listing.sources[-1], 1 << 20) == photographs(9)[-1]


def count_or_error(path: Path) -> str:
    try:
        return str(reader.count(path))
    except UserError as error:
        return str(error)


def test_damaged_metadata_is_one_line(tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "x.parquet", image=image_column(photographs(2))).read_bytes()
    places = [each.start() for each in re.finditer(b"bytes", data)]
    assert len(places) > 1  # in the schema, and in the metadata of each row group
    for place in places:
        path = tmp_path / f"{place}.parquet"
        path.write_bytes(data[:place] + b"\x93" + data[place + 1 :])
        # Some versions of pyarrow ignore the name.
        assert re.fullmatch("2|.* (is damaged|has no image column).*", count_or_error(path))


def test_row_groups_that_do_not_fit_into_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(tmp_path / "large.parquet", image=image_column(photographs(3)))
    monkeypatch.setattr(reader, "_MAX_GROUP_BYTES", 1000)
    with pytest.raises(UserError, match=r"row groups of [\d,]+ bytes.* row_group_size=100"):
        reader.count(path)


def test_missing_pyarrow_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'colortrain\[parquet\]'"):
        open_sources(str(tmp_path), ELSEWHERE)
