"""Tests of records: their content, and which blocks count as done."""

from dataclasses import replace
from pathlib import Path

import pytest

from shards.builder.plan import Plan, load_plan
from shards.builder.records import (
    DUPLICATE,
    Fate,
    Record,
    load_done,
    load_record,
    record_path,
    save_record,
    with_fates,
)
from shards.errors import UserError
from tests.support.photographs import fingerprint, make_folder, pack_folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "photos", 6)


@pytest.fixture
def built(photos: Path, tmp_path: Path) -> Path:
    pack_folder(photos, tmp_path / "out", shard_size=3)
    return tmp_path / "out"


def first(root: Path) -> tuple[Plan, Record]:
    plan = load_plan(root)
    return plan, load_record(root, plan, 0)


def test_entry_has_size_and_hash_of_its_source(photos: Path, built: Path) -> None:
    entry = first(built)[1].entries[0]
    assert (entry.width, entry.height) == (48, 48)
    assert entry.sha256 == fingerprint(photos)[entry.source]


def test_saved_record_loads_equal(built: Path) -> None:
    plan, record = first(built)
    save_record(record, built)
    assert load_record(built, plan, 0) == record


def test_block_is_done_only_with_intact_shard_and_index(built: Path) -> None:
    plan, record = first(built)
    assert load_done(built, plan, 0) == record
    tar = built / record.shards["all"].path
    data = tar.read_bytes()
    tar.write_bytes(data[:-1] + b"x")
    assert load_done(built, plan, 0) is None
    tar.write_bytes(data)
    tar.with_suffix(".idx").unlink()
    assert load_done(built, plan, 0) is None
    record_path(built, 0).unlink()
    assert load_done(built, plan, 0) is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"build": "', '"build": "x', "belongs to another build"),
        ('"key": 0', '"key": 7', "belongs to another build"),
        ('"key"', '"kee"', "is damaged"),
        ("{", "", "is damaged"),
    ],
)
def test_invalid_record_raises(built: Path, old: str, new: str, message: str) -> None:
    path = record_path(built, 0)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=rf"000000\.jsonl {message}"):
        load_record(built, load_plan(built), 0)


def test_duplicates_are_marked_and_unmarked(built: Path) -> None:
    record = first(built)[1]
    key = record.entries[1].key
    marked = with_fates(record, {key: Fate("all", DUPLICATE, "of first.png")})
    (entry,) = marked.left_out
    assert (entry.key, entry.reason, entry.detail) == (key, DUPLICATE, "of first.png")
    assert entry == replace(record.entries[1], reason=DUPLICATE, detail="of first.png")
    assert marked.keys("all") == [each.key for each in record.entries if each.key != key]
    assert with_fates(marked, {}) == record
