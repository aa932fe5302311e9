"""Tests of manifest: dataset_id identifies the content, invalid ones are rejected."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import UserError
from shards.format.manifest import Manifest, load_manifest, save_manifest
from shards.format.shard_table import Shard, ShardTable
from tests.shards.format.strategies import SHARDS


def manifest_of(splits: dict[str, list[Shard]]) -> Manifest:
    return Manifest(
        size=32, fit="crop", dtype="uint8", splits={**splits}, left_out={"grey": 3, "é": 1}
    )


@given(st.dictionaries(st.sampled_from(["train", "val", "é"]), SHARDS, min_size=1))
def test_dataset_id_is_the_hash_of_sorted_json(splits: dict[str, list[Shard]]) -> None:
    manifest = manifest_of(splits)
    plain = json.dumps(asdict(manifest), sort_keys=True)
    assert manifest.dataset_id == hashlib.sha256(plain.encode()).hexdigest()[:16]
    tables = manifest_of({name: list(ShardTable(each)) for name, each in splits.items()})
    assert tables.dataset_id == manifest.dataset_id


@given(SHARDS)
def test_saved_manifest_loads_equal(
    tmp_path_factory: pytest.TempPathFactory, shards: list[Shard]
) -> None:
    shards = [replace(shard, path=f"train/{shard.path.replace('/', '-')}.tar") for shard in shards]
    folder = tmp_path_factory.mktemp("set")
    manifest = manifest_of({"train": shards, "val": shards[:1]})
    save_manifest(manifest, folder)
    assert load_manifest(folder) == manifest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"samples": 7', '"samples": "7"'),
        ('"samples": 7', f'"samples": {10**30}'),
        ('"samples": 7', '"samples": 8'),
        ("ab" * 32, "ab" * 31),
        ("ab" * 32, "xy" * 32),
        ('"path"', '"paht"'),
    ],
)
def test_invalid_shard_raises_a_one_line_error(tmp_path: Path, old: str, new: str) -> None:
    save_manifest(
        manifest_of({"train": [Shard(path="a.tar", samples=7, bytes=1, sha256="ab" * 32)]}),
        tmp_path,
    )
    path = tmp_path / "manifest.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    ("split", "path"),
    [
        ("../../victim", "000000.tar"),
        ("/victim", "000000.tar"),
        ("", "000000.tar"),
        ("train", "/victim/000000.tar"),
        ("train", "train/../../victim/000000.tar"),
        ("train", ".."),
    ],
)
def test_names_that_lead_out_of_the_folder_are_rejected(
    tmp_path: Path, split: str, path: str
) -> None:
    save_manifest(
        manifest_of({split: [Shard(path=path, samples=7, bytes=1, sha256="ab" * 32)]}), tmp_path
    )
    with pytest.raises(
        UserError, match=r"manifest\.json is damaged \((invalid split name|shard path) '"
    ):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"size": "32"},
        {"size": 10**9},
        {"size": True},
        {"dtype": "object"},
        {"dtype": ["uint8"]},
        {"left_out": {"grey": "3"}},
        {"left_out": [3]},
    ],
)
def test_invalid_field_raises_a_one_line_error(tmp_path: Path, fields: dict[str, object]) -> None:
    save_manifest(replace(manifest_of({}), **fields), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        load_manifest(tmp_path)


def test_negative_or_huge_counts_are_rejected(tmp_path: Path) -> None:
    for samples, size in ((-1, 1), (1, -1), (2**62, 1), (1, 2**62)):
        shards = [
            Shard(path=f"{n}.tar", samples=samples, bytes=size, sha256="0" * 64) for n in "ab"
        ]
        with pytest.raises((ValueError, OverflowError)):
            ShardTable(shards)
        save_manifest(manifest_of({"all": shards}), tmp_path)
        with pytest.raises(UserError, match=r"manifest\.json is damaged"):
            load_manifest(tmp_path)


@pytest.mark.parametrize("kind", ["6 GB", "nested", "pipe", "device"])
def test_hostile_manifest_raises_a_one_line_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "manifest.json"
    if kind == "6 GB":
        path.touch()
        os.truncate(path, 6 * 10**9)
    elif kind == "nested":
        path.write_bytes(b'{"splits": ' + b"[" * 200_000)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"manifest\.json") as caught:
        load_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_manifest_that_could_not_be_read_again_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.format.manifest.MAX_MANIFEST_BYTES", 300)
    save_manifest(manifest_of({}), tmp_path)
    shards = [Shard(path="a.tar", samples=1, bytes=1, sha256="0" * 64)]
    with pytest.raises(UserError, match="with a larger --shard-size"):
        save_manifest(manifest_of({"all": shards}), tmp_path)
    assert load_manifest(tmp_path) == manifest_of({})


def test_two_dots_inside_a_name_are_accepted(tmp_path: Path) -> None:
    manifest = manifest_of(
        {"all": [Shard(path="a..b/..c.tar", samples=7, bytes=1, sha256="ab" * 32)]}
    )
    save_manifest(manifest, tmp_path)
    assert load_manifest(tmp_path) == manifest
