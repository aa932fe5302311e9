"""Loading uneven shards on two processes: no hang, no sample lost or repeated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shards.format.index import INDEX, rebuild_index, write_index
from shards.format.manifest import Manifest, save_manifest
from shards.format.tar_layout import TarOfSamples
from shards.read.dataset import Split
from tests.support.processes import run_command
from tests.support.small_shard_set import small_set

SHARDS = (7, 1, 13, 0, 5, 11, 2)  # 39 samples, odd everywhere
BATCH, EPOCHS = 6, 4


def numbered_set(root: Path) -> Path:
    """Write seven shards of samples whose ab encode their number."""
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
    write_index(
        root / INDEX, rebuild_index([root / shard.path for shard in shards], shards, 4, "uint8")
    )
    save_manifest(
        Manifest(size=4, fit="crop", dtype="uint8", splits={"all": tuple(shards)}, left_out={}),
        root,
    )
    return root


@pytest.mark.distributed
def test_two_processes_share_odd_shards(tmp_path: Path) -> None:
    shards = numbered_set(tmp_path / "set")
    samples = sum(SHARDS)
    steps = samples * EPOCHS // BATCH  # 26 full batches in four epochs
    done = run_command("tests.support.seen_samples", [shards, tmp_path, BATCH, steps], processes=2)
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [len(rank) for rank in ranks] == [steps, steps]
    seen = np.array([first + second for first, second in zip(*ranks, strict=True)]).ravel()
    assert len(seen) == samples * EPOCHS
    for epoch in seen.reshape(EPOCHS, samples):
        assert sorted(epoch.tolist()) == list(range(samples))
    np.testing.assert_array_equal(seen, Split(shards).order(1)(0, len(seen)))


@pytest.mark.distributed
def test_training_stops_at_damage_or_counts_substituted_samples(tmp_path: Path) -> None:
    shards = small_set(tmp_path / "set", size=32, count=22, splits=("train", "val"))
    tar = sorted((shards / "train").glob("*.tar"))[0]
    data = bytearray(tar.read_bytes())
    data[700] ^= 1  # a pixel of the first sample
    tar.write_bytes(bytes(data))
    small = [
        "size=32",
        "generator.levels=3",
        "generator.base_channels=4",
        "critic.base_channels=4",
        "batch_size=4",
    ]
    sets = [text for change in [*small, "log_every=1"] for text in ("--set", change)]
    argv = [
        "--recipe",
        "nampouri_unet",
        "--shards",
        shards,
        "--images",
        24,
        "--tracker",
        "none",
        *sets,
    ]
    stopped = run_command("launch.train", [*argv, "--run", tmp_path / "stopped"])
    assert stopped.returncode == 2
    assert stopped.stderr.splitlines()[-1].count(f"{tar}: the member at byte 512") == 1
    resumed = run_command(
        "launch.train",
        [*argv, "--run", tmp_path / "on", "--on-corrupt", "substitute", "--corrupt-limit", 0.1],
        processes=2,
    )
    assert resumed.returncode == 0, resumed.stderr
    output = [line for line in resumed.stderr.splitlines() if "replaced a damaged sample" in line]
    assert (
        1 <= len({line.split(":")[0] for line in output}) == len(output) <= 2
    )  # each rank that reads it reports it once
    lines = [
        json.loads(line) for line in (tmp_path / "on" / "metrics.jsonl").read_text().splitlines()
    ]
    counts = [line["substituted"] for line in lines if line["kind"] == "train"]
    assert counts == sorted(counts)
    assert counts[-1] >= 2  # 24 images are two epochs and more
