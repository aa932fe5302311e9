"""Fixtures of tests with several processes: a small shard set, and a fast launcher."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.small_shard_set import small_set
from tests.support.warm_launcher import WarmLauncher, warm_launcher


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=22, splits=("train", "val"))


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmLauncher]:
    with warm_launcher(tmp_path_factory.mktemp("log")) as launcher:
        yield launcher
