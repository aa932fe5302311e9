"""The methods that make batches of float tensors."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch

from colortrain.lab import SymmetricCodec
from launch.benchmark.loading import floats
from launch.benchmark.loading.shard_sets import tar_paths
from shards.read.dataset import Split
from tests.support.small_shard_set import small_set


def test_floats_are_those_of_the_codec(tmp_path: Path) -> None:
    """All methods compute what the training loader computes."""
    split = Split(small_set(tmp_path / "set", size=16, count=4))
    stored = np.array(split.read(range(4)))
    L, ab = floats.stack_to_floats([(sample,) for sample in stored])
    lab = np.concatenate([stored[:, :1] / 2.55, stored[:, 1:] - 128.0], axis=1, dtype=np.float32)
    expected_L, expected_ab = SymmetricCodec().encode(torch.from_numpy(lab))
    torch.testing.assert_close(L, expected_L)
    torch.testing.assert_close(ab, expected_ab)


@pytest.mark.filterwarnings("ignore:Exception ignored in")  # webdataset leaves a file open
def test_each_count_of_workers_is_measured(tmp_path: Path) -> None:
    split = Split(small_set(tmp_path / "set", size=16, count=12))
    methods = floats.make_methods(split, tar_paths(split), {}, 4, [0, 1])
    assert [each.name for each in methods] == [
        "colortrain, 0 workers",
        "colortrain, 1 worker",
        "webdataset + DataLoader, 0 workers",
        "webdataset + DataLoader, 1 worker",
        "webdataset + DataLoader, 1 worker, floats in workers",
    ]
    for each in methods[::2][:2]:  # without workers
        stream = each.start()
        assert [next(stream) for _ in range(4)] == [4] * 4
        stream.close()
    gc.collect()
