"""Batches from a shard set at a URL equal those from its folder.

This holds also with a cache that is smaller than the set.
"""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
import torch

from colortrain.data.loader import Loader, LoaderConfig
from colortrain.lab import SymmetricCodec
from shards.errors import UserError
from shards.read.cache import Cache
from shards.read.dataset import Split, open_held_out
from shards.read.mixture import open_training
from tests.support.http_server import serving
from tests.support.small_shard_set import small_set


def batches(split: Split, count: int) -> torch.Tensor:
    loader = Loader(split, SymmetricCodec(), LoaderConfig(batch_size=8, seed=3, flip=0.5))
    with closing(loader.batches()) as stream:
        return torch.cat([batch.colour for batch in islice(stream, count)])


@pytest.mark.parametrize("shards_in_cache", [2, 100])
def test_batches_from_a_url_equal_those_from_the_folder(
    tmp_path: Path, shards_in_cache: int
) -> None:
    root = small_set(tmp_path / "served" / "set", size=16, count=60, splits=("train", "val"))
    shard = max(path.stat().st_size for path in root.rglob("*.tar"))
    cache = Cache(tmp_path / "cache", shards_in_cache * shard + 10_000)
    with serving(tmp_path / "served") as server:
        split = Split(f"{server.url}/set", cache=cache)
        # three epochs of six shards
        assert torch.equal(batches(split, 12), batches(Split(root), 12))
        if shards_in_cache == 100:
            assert max(server.requests.values()) <= 2  # the manifest; each shard once
    assert (
        sum(path.stat().st_size for path in cache.folder.rglob("*") if path.is_file())
        <= cache.max_bytes + 500
    )


def test_held_out_and_training_splits_are_found_at_a_url(tmp_path: Path) -> None:
    small_set(tmp_path / "served" / "set", size=16, count=12, splits=("train", "val"))
    cache = Cache(tmp_path / "cache", 10**6)
    with serving(tmp_path / "served") as server:
        url = f"{server.url}/set"
        assert open_held_out(url, cache).name == "val"
        assert open_held_out(url, cache).sibling("train").name == "train"
        mixture = open_training([f"{url}:0.5", f"{tmp_path / 'served' / 'set'}:0.5"], cache=cache)
        assert len(mixture) == 12
        with pytest.raises(UserError, match="give --cache DIR"):
            Split(url)
