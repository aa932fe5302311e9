"""Tests of finalize: duplicates are removed, or packed if the first copy changes."""

import json
from pathlib import Path

import pytest

from shards.builder.finalize import apply_fates
from shards.builder.plan import load_plan
from shards.builder.records import DUPLICATE, SourceEntry, load_record
from shards.errors import UserError
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


def entries(root: Path) -> dict[str, dict[str, object]]:
    lines = [
        line
        for path in sorted((root / "sources").iterdir())
        for line in path.read_text().splitlines()[1:]
    ]
    return {str(entry["source"]): entry for entry in map(json.loads, lines)}


def test_equal_files_and_equal_pixels_are_duplicates_for_any_number_of_workers(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, crop in enumerate(random_crops(12)):
        data = encode(crop)
        (folder / f"{number:02d}.png").write_bytes(data)
        if number < 4:
            (folder / f"{number:02d} copy.png").write_bytes(data)
            (folder / f"{number:02d} saved again.tif").write_bytes(encode(crop, "TIFF"))
    results = [
        pack_folder(folder, tmp_path / str(n), workers=n, shard_size=3, splits=SPLITS)
        for n in (1, 2)
    ]
    assert [result.manifest.left_out for result in results] == [{"duplicate": 8}] * 2
    assert fingerprint(tmp_path / "1") == fingerprint(tmp_path / "2")
    verify(tmp_path / "1", quiet=True)
    by_name = entries(tmp_path / "1")
    for number in range(4):
        group = [entry for name, entry in by_name.items() if name.startswith(f"{number:02d}")]
        packed = [entry for entry in group if "reason" not in entry]
        assert len(packed) == 1
        assert packed[0]["key"] == min(int(str(entry["key"])) for entry in group)
        assert {entry["detail"] for entry in group if "reason" in entry} == {
            f"of {packed[0]['source']}"
        }
    before = fingerprint(tmp_path / "1")
    pack_folder(folder, tmp_path / "1", shard_size=3, splits=SPLITS)
    assert fingerprint(tmp_path / "1") == before


def test_build_without_any_packed_image_raises(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"broken")
    with pytest.raises(UserError, match="1 of 1 images cannot be packed"):
        pack_folder(tmp_path / "photos", tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def packed_and_dropped(root: Path) -> tuple[SourceEntry, SourceEntry]:
    """Return the entries of the only duplicate: the packed one, the one left out."""
    plan = load_plan(root)
    entries = [
        entry
        for block in range(plan.num_blocks)
        for entry in load_record(root, plan, block).entries
    ]
    (dropped,) = (entry for entry in entries if entry.reason == DUPLICATE)
    (packed,) = (entry for entry in entries if not entry.reason and entry.packed == dropped.packed)
    return packed, dropped


@pytest.mark.parametrize("content", [b"broken", encode(photograph("coffee"))])
def test_duplicate_is_packed_when_its_first_copy_changes(tmp_path: Path, content: bytes) -> None:
    folder = make_folder(tmp_path / "photos", 12)
    (folder / "copy.png").write_bytes((folder / "class1" / "photo 001.png").read_bytes())
    pack_folder(folder, tmp_path / "out", shard_size=2)
    packed, dropped = packed_and_dropped(tmp_path / "out")
    assert packed.key // 2 != dropped.key // 2
    (folder / packed.source).write_bytes(content)
    # Delete the record, so that its block is packed again.
    (tmp_path / "out" / "sources" / f"{packed.key // 2:06d}.jsonl").unlink()
    result = pack_folder(folder, tmp_path / "out", shard_size=2)
    assert DUPLICATE not in result.manifest.left_out
    verify(tmp_path / "out", quiet=True)
    pack_folder(folder, tmp_path / "new", shard_size=2)
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "new")


def test_one_of_three_copies_remains_when_the_first_changes(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", 10)
    (crop,) = random_crops(1, 40)
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(encode(crop))
    pack_folder(folder, tmp_path / "out", shard_size=1)
    listed = (tmp_path / "out" / "left_out.tsv").read_text()
    (first,) = (name for name in ("a.png", "b.png", "c.png") if f"{name}\tduplicate" not in listed)
    (folder / first).write_bytes(b"broken")
    for path in (tmp_path / "out" / "sources").iterdir():
        if f'"{first}"' in path.read_text().replace(f"of {first}", ""):
            path.unlink()
    assert pack_folder(folder, tmp_path / "out", shard_size=1).manifest.left_out == {
        "duplicate": 1,
        "unreadable": 1,
    }
    verify(tmp_path / "out", quiet=True)
    pack_folder(folder, tmp_path / "new", shard_size=1)
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "new")


def test_duplicates_are_not_removed_from_a_shard_that_differs_from_its_record(
    tmp_path: Path,
) -> None:
    """Its pixels belong to other images and must not be copied under these keys."""
    folder = make_folder(tmp_path / "photos", 8)
    (folder / "copy.jpg").write_bytes((folder / "class0" / "photo 000.jpg").read_bytes())
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.builder.finalize.apply_fates", lambda root, plan: None)
        pack_folder(folder, out, shard_size=9)
    tar = out / "000000.tar"
    data = bytearray(tar.read_bytes())
    data[1000] ^= 1
    tar.write_bytes(data)
    with pytest.raises(UserError, match=r"000000.tar changed during the build"):
        apply_fates(out, load_plan(out))
    assert tar.read_bytes() == data
    assert pack_folder(folder, out, shard_size=9).num_packed == 8
    verify(out, quiet=True)
