"""Tests of integrity: a shard is intact, or the first damage is described."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from shards.builder.integrity import recorded_index, tar_damage
from shards.builder.plan import load_plan
from shards.builder.records import load_record
from tests.support.photographs import make_folder, pack_folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_folder(tmp_path_factory.mktemp("photos"), 8)
    out = tmp_path_factory.mktemp("built") / "out"
    pack_folder(folder, out, size=16, splits="train=.6,val=.4", shard_size=4)
    return out


def test_recorded_index_has_the_offsets_that_tarfile_finds(built: Path) -> None:
    plan = load_plan(built)
    for block in range(plan.num_blocks):
        record = load_record(built, plan, block)
        for split, shard in record.shards.items():
            with tarfile.open(built / shard.path) as tar:
                rows = [f"lab.npy {each.offset_data} {each.size} {each.name}" for each in tar]
            assert recorded_index(plan, record, split).splitlines()[1:] == rows


def test_each_byte_of_a_tar_is_checked(built: Path) -> None:
    plan = load_plan(built)
    record = load_record(built, plan, 0)
    split, shard = next(iter(record.shards.items()))
    assert tar_damage(built, plan, record, split) == ""
    path = built / shard.path
    data = path.read_bytes()
    for offset in range(0, len(data), 97):
        changed = data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]
        path.write_bytes(changed)
        assert tar_damage(built, plan, record, split).startswith(f"{path} is damaged: ")
        # With a SHA-256 that is right, only the members differ from the record.
        lying = replace(shard, sha256=sha256(changed).hexdigest())
        shards = {**record.shards, split: lying}
        assert "bytes" in tar_damage(built, plan, replace(record, shards=shards), split)
    path.unlink()
    assert tar_damage(built, plan, record, split) == f"{path} is missing"
    path.write_bytes(data)
