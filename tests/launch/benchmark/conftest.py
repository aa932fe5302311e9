"""The shard set of the benchmarks of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.small_shard_set import small_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=16)
