"""Two real processes, shards and sizes that do not divide: nothing hangs, no sample is lost or seen twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shards.format import Manifest, save_manifest
from shards.index import INDEX, rebuild_index, write_index
from shards.reader import Split
from shards.tars import TarOfSamples
from tests.distributed.processes import run_door

SHARDS = (7, 1, 13, 0, 5, 11, 2)  # 39 samples, odd everywhere
BATCH, EPOCHS = 6, 4


def numbered_set(root: Path) -> Path:
    """Seven shards of samples whose ab are their own number."""
    shards, number = [], 0
    for place, count in enumerate(SHARDS):
        with TarOfSamples(root, f"{place:06d}.tar", 4, "uint8") as tar:
            for _ in range(count):
                pixels = np.zeros((3, 4, 4), np.uint8)
                pixels[1:] = np.array([number % 256, number // 256])[:, None, None]
                tar.add(number, pixels.tobytes())
                number += 1
        assert tar.shard
        shards.append(tar.shard)
    write_index(root / INDEX, rebuild_index([root / shard.path for shard in shards], shards, 4, "uint8"))
    save_manifest(Manifest(size=4, fit="crop", dtype="uint8", splits={"all": tuple(shards)}, left_out={}), root)
    return root


@pytest.mark.distributed
def test_two_processes_share_odd_shards(tmp_path: Path) -> None:
    shards = numbered_set(tmp_path / "set")
    samples = sum(SHARDS)
    steps = samples * EPOCHS // BATCH  # 26 whole batches in four epochs
    done = run_door("tests.distributed.seen", [shards, tmp_path, BATCH, steps], processes=2)
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [len(rank) for rank in ranks] == [steps, steps]
    seen = np.array([first + second for first, second in zip(*ranks, strict=True)]).ravel()
    assert len(seen) == samples * EPOCHS
    for epoch in seen.reshape(EPOCHS, samples):
        assert sorted(epoch.tolist()) == list(range(samples))
    np.testing.assert_array_equal(seen, Split(shards).order(1)(0, len(seen)))
