"""The manifest: an id that names its content whatever holds it, and tables of many shards in little memory."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import UserError
from shards.format.manifest import Manifest, load_manifest, save_manifest
from shards.format.shard_table import Shard, ShardTable, samples_of

shards = st.builds(
    Shard,
    path=st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable()),
    samples=st.integers(0, 2**40),
    bytes=st.integers(0, 2**50),
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
)
several = st.lists(shards, max_size=5)


def manifest_of(splits: dict[str, list[Shard]]) -> Manifest:
    return Manifest(
        size=32, fit="crop", dtype="uint8", splits={**splits}, left_out={"grey": 3, "é": 1}
    )


@given(st.dictionaries(st.sampled_from(["train", "val", "é"]), several, min_size=1))
def test_the_id_is_the_hash_of_sorted_json(splits: dict[str, list[Shard]]) -> None:
    manifest = manifest_of(splits)
    plain = json.dumps(asdict(manifest), sort_keys=True)
    assert manifest.dataset_id == hashlib.sha256(plain.encode()).hexdigest()[:16]
    tables = manifest_of({name: list(ShardTable(each)) for name, each in splits.items()})
    assert tables.dataset_id == manifest.dataset_id


@given(several)
def test_a_table_is_the_sequence_it_was_made_of(wanted: list[Shard]) -> None:
    table = ShardTable(wanted)
    assert list(table) == wanted == table
    assert [table[-1 - place] for place in range(len(wanted))] == wanted[::-1]
    assert table[1:3] == tuple(wanted[1:3])
    assert (
        samples_of(table).tolist()
        == [shard.samples for shard in wanted]
        == samples_of(wanted).tolist()
    )
    with pytest.raises(IndexError):
        table[len(wanted)]


@given(several)
def test_saved_and_loaded(tmp_path_factory: pytest.TempPathFactory, wanted: list[Shard]) -> None:
    wanted = [replace(shard, path=f"train/{shard.path.replace('/', '-')}.tar") for shard in wanted]
    folder = tmp_path_factory.mktemp("set")
    manifest = manifest_of({"train": wanted, "val": wanted[:1]})
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
def test_what_cannot_be_a_shard_is_one_line(tmp_path: Path, old: str, new: str) -> None:
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
def test_what_leads_out_of_the_folder_is_refused(tmp_path: Path, split: str, path: str) -> None:
    save_manifest(
        manifest_of({split: [Shard(path=path, samples=7, bytes=1, sha256="ab" * 32)]}), tmp_path
    )
    with pytest.raises(
        UserError, match=r"manifest\.json is damaged \(a (split is called|shard lies at) '"
    ):
        load_manifest(tmp_path)


def test_two_dots_in_a_name_lead_nowhere(tmp_path: Path) -> None:
    manifest = manifest_of(
        {"all": [Shard(path="a..b/..c.tar", samples=7, bytes=1, sha256="ab" * 32)]}
    )
    save_manifest(manifest, tmp_path)
    assert load_manifest(tmp_path) == manifest


def test_many_shards_take_little_memory() -> None:
    tracemalloc.start()
    table = ShardTable(
        Shard(path=f"train/{n:06d}.tar", samples=1000, bytes=n, sha256=f"{n:064x}")
        for n in range(5000)
    )
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / len(table) < 100  # bytes; as objects they are 400
