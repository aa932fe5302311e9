"""Tests of shard_table: a table equals the shards it stores and takes little memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given

from shards.format.shard_table import Shard, ShardTable, sample_counts
from tests.shards.format.strategies import SHARDS


@given(SHARDS)
def test_table_equals_the_sequence_it_was_created_from(shards: list[Shard]) -> None:
    table = ShardTable(shards)
    assert list(table) == shards == table
    assert [table[-1 - index] for index in range(len(shards))] == shards[::-1]
    assert table[1:3] == tuple(shards[1:3])
    counts = [shard.samples for shard in shards]
    assert sample_counts(table).tolist() == counts == sample_counts(shards).tolist()
    with pytest.raises(IndexError):
        table[len(shards)]


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("samples", "7", TypeError),
        ("samples", 10**30, OverflowError),
        ("bytes", 1.0, TypeError),
        ("sha256", "ab" * 31, ValueError),
        ("sha256", "xy" * 32, ValueError),
    ],
)
def test_invalid_field_raises(field: str, value: object, error: type[Exception]) -> None:
    fields = {"path": "a.tar", "samples": 7, "bytes": 1, "sha256": "ab" * 32, field: value}
    with pytest.raises(error):
        ShardTable([Shard(**fields)])  # type: ignore[arg-type]


def test_many_shards_take_little_memory() -> None:
    tracemalloc.start()
    table = ShardTable(
        Shard(path=f"train/{n:06d}.tar", samples=1000, bytes=n, sha256=f"{n:064x}")
        for n in range(5000)
    )
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / len(table) < 100  # bytes; one object per shard would take 400
