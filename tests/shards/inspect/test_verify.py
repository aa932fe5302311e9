"""Tests of verify: errors name the damaged shard, member and byte range."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.builder.finalize import index_table
from shards.builder.plan import load_plan
from shards.builder.records import load_record, save_record
from shards.errors import UserError
from shards.format.index import write_index
from shards.format.manifest import load_manifest, save_manifest
from shards.format.tar_layout import member_stride, tar_header
from shards.inspect.verify import verify
from tests.support.photographs import make_folder, pack_folder

SHARD = "train/000001.tar"
STRIDE = member_stride(32, "uint8")


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_folder(tmp_path_factory.mktemp("photos"), 30)
    (folder / "bad.jpg").write_bytes(b"broken")
    out = tmp_path_factory.mktemp("intact") / "out"
    pack_folder(folder, out, splits="train=.8,val=.2", shard_size=10)
    return out


@pytest.fixture
def out(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "out"))


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("workers", [1, 2])
def test_intact_shard_set_passes(intact: Path, workers: int) -> None:
    manifest = verify(intact, workers, quiet=True)
    assert manifest.samples("train") + manifest.samples("val") == 30


def test_tar_header_is_the_expected_one(out: Path) -> None:
    key = int(np.load(out / "train" / "index.npy")[0, 0])
    assert (out / "train" / "000000.tar").read_bytes()[:512] == tar_header(key, 32, "uint8")


@pytest.mark.parametrize(
    ("offset", "damage"),
    [
        (2 * STRIDE + 3, "wrong tar header"),
        (2 * STRIDE + 512 + 9, "wrong npy header"),
        (2 * STRIDE + 512 + 128 + 1000, "pixels are not those recorded"),
        (2 * STRIDE + 512 + 128 + 3072 - 1, "pixels are not those recorded"),
    ],
)
def test_flipped_bit_is_found_in_its_member(out: Path, offset: int, damage: str) -> None:
    flip(out / SHARD, offset)
    member = f"{keys_of_second_shard(out)[2]:09d}.lab.npy"
    message = rf"{SHARD} is damaged: member {member} \('class.*bytes \d+-\d+: {damage}"
    with pytest.raises(UserError, match=message) as caught:
        verify(out, quiet=True)
    match = re.search(r"bytes (\d+)-(\d+)", str(caught.value))
    assert match
    assert int(match[1]) <= offset <= int(match[2])


def keys_of_second_shard(out: Path) -> np.ndarray:
    table = np.load(out / "train" / "index.npy")
    starts = np.flatnonzero(table[:, 1] == 512)
    keys: np.ndarray = table[starts[1] : starts[2], 0]
    return keys


def test_padding_at_the_end_of_a_tar_is_checked(out: Path) -> None:
    flip(out / SHARD, -1)
    with pytest.raises(UserError, match=r"after the last member, bytes .*: not zero"):
        verify(out, quiet=True)


def test_error_for_a_truncated_shard_names_its_last_member(out: Path) -> None:
    data = (out / SHARD).read_bytes()
    (out / SHARD).write_bytes(data[: 3 * STRIDE + 700])
    with pytest.raises(
        UserError, match=rf"{SHARD} is damaged: member .*the file ends at byte {3 * STRIDE + 700}"
    ):
        verify(out, quiet=True)


def drop(name: str) -> Callable[[Path], None]:
    return lambda out: (out / name).unlink()


def empty(name: str) -> Callable[[Path], None]:
    def apply(out: Path) -> None:
        (out / name).write_bytes(b"")

    return apply


def swap_members(out: Path) -> None:
    data = (out / SHARD).read_bytes()
    (out / SHARD).write_bytes(data[STRIDE : 2 * STRIDE] + data[:STRIDE] + data[2 * STRIDE :])


def change_index(row: int, column: int) -> Callable[[Path], None]:
    def apply(out: Path) -> None:
        table = np.load(out / "train" / "index.npy")
        table[row, column] += 512
        np.save(out / "train" / "index.npy", table)

    return apply


def change_checksum(out: Path) -> None:
    """Write the same wrong CRC-32 to record and index, as a faulty builder would."""
    plan = load_plan(out)
    record = load_record(out, plan, 1)
    wrong = [replace(entry, crc32=entry.crc32 ^ entry.is_in("train")) for entry in record.entries]
    save_record(replace(record, entries=tuple(wrong)), out)
    records = [load_record(out, plan, block) for block in range(plan.num_blocks)]
    write_index(out / "train" / "index.npy", index_table(plan, records, "train"))


def swap_pixels(out: Path) -> None:
    """Swap the pixels of two samples and update the SHA-256, as a faulty build does."""
    data = bytearray((out / SHARD).read_bytes())
    first, second = (slice(offset + 512 + 128, offset + STRIDE) for offset in (0, STRIDE))
    data[first], data[second] = data[second], data[first]
    (out / SHARD).write_bytes(data)
    plan, manifest = load_plan(out), load_manifest(out)
    record = load_record(out, plan, 1)
    shard = replace(record.shards["train"], sha256=hashlib.sha256(data).hexdigest())
    save_record(replace(record, shards={**record.shards, "train": shard}), out)
    shards = tuple(shard if each.path == SHARD else each for each in manifest.splits["train"])
    save_manifest(replace(manifest, splits={**manifest.splits, "train": shards}), out)


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(out: Path) -> None:
        text = (out / name).read_text()
        assert old in text
        (out / name).write_text(text.replace(old, new, 1))

    return apply


def overwrite(name: str, offset: int, new: bytes) -> Callable[[Path], None]:
    def apply(out: Path) -> None:
        data = (out / name).read_bytes()
        (out / name).write_bytes(data[:offset] + new + data[offset + len(new) :])

    return apply


def forge_manifest(out: Path) -> None:
    """Remove a shard from the manifest and update its dataset_id."""
    manifest = load_manifest(out)
    manifest.splits["train"] = manifest.splits["train"][1:]
    save_manifest(
        type(manifest)(**{n: getattr(manifest, n) for n in manifest.__dataclass_fields__}), out
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop(SHARD), f"{SHARD} is missing"),
        (empty(SHARD), f"{SHARD} is damaged: it is empty"),
        (swap_members, "wrong tar header"),
        (swap_pixels, f"{SHARD} is damaged: member .* pixels are not those recorded"),
        (drop("train/000001.idx"), "train/000001.idx does not match its tar"),
        (edit("train/000001.idx", "v1.2", "v1.1"), "train/000001.idx does not match"),
        (change_index(3, 1), "train/index.npy does not match the tars"),
        (change_index(5, 2), "train/index.npy does not match the tars"),
        (change_checksum, f"{SHARD} is damaged: member .* pixels do not have the recorded CRC-32"),
        (drop("val/index.npy"), "val/index.npy is missing"),
        # For these three, numpy's own parser raises BadZipFile, TokenError and
        # SyntaxError.
        (overwrite("val/index.npy", 0, b"PK\3\4"), "val/index.npy is damaged"),
        (overwrite("val/index.npy", 8, b"\1"), "val/index.npy is damaged"),
        (overwrite("val/index.npy", 21, b","), "val/index.npy is damaged"),
        (drop("manifest.json"), "has no manifest.json: it is not a shard set, or its build"),
        (edit("manifest.json", '"size": 32', '"size": 64'), "manifest.json is damaged .dataset_id"),
        (edit("manifest.json", "{", ""), "manifest.json is damaged"),
        (forge_manifest, "train/000000.tar: manifest.json and the record of its sources differ"),
        (drop("sources/000002.jsonl"), "sources/000002.jsonl is missing"),
        (
            edit("sources/000002.jsonl", '"key": 2', '"key": 7'),
            "sources/000002.jsonl belongs to another build",
        ),
        (edit("sources/000002.jsonl", "}", ""), "sources/000002.jsonl is damaged"),
        (drop("build.json"), "has no build.json"),
        (edit("build.json", '"size": 32', '"size": 31'), "has size 32"),
    ],
)
def test_damage_raises_a_one_line_error(
    out: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(out)
    with pytest.raises(UserError, match=message) as caught:
        verify(out, quiet=True)
    assert "\n" not in str(caught.value)


def test_damaged_blocks_are_counted_and_the_first_is_named(out: Path) -> None:
    for name in ("train/000002.tar", "train/000000.tar"):
        flip(out / name, 700)
    with pytest.raises(UserError, match=r"train/000000.tar is damaged.*\(more damaged blocks: 1\)"):
        verify(out, workers=2, quiet=True)


def test_manifest_counts_images_left_out(intact: Path) -> None:
    assert json.loads((intact / "manifest.json").read_text())["left_out"] == {"unreadable": 1}
