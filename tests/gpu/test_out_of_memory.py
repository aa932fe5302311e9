"""Memory that runs out on GPU stand-ins is one line and exit status 2."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.support.gpu_stand_in.build import GPUS_VARIABLE, MEMORY_VARIABLE
from tests.support.gpu_stand_in.processes import needs_stand_in, run_on_gpus
from tests.support.small_run import SETTINGS, small_run
from tests.support.small_shard_set import small_set

pytestmark = needs_stand_in

# The networks of SETTINGS take about 0.1 MB; a batch of 16 images takes 0.2 MB as Lab.
MEMORY = {MEMORY_VARIABLE: str(1 << 19)}
NUMBERS = r"\(\d+\.\d+ MiB requested, \d+\.\d+ MiB of 0\.50 MiB free on GPU {}\)"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), count=40, splits=("train", "val"))


def training(shards: Path, run: Path, *more: str) -> list[str]:
    sets = [arg for setting in (*SETTINGS, "batch_size=16") for arg in ("--set", setting)]
    return [
        *("--recipe", "nampouri_unet", "--shards", str(shards), "--run", str(run)),
        *("--tracker", "none", "--images", "32", *sets, *more),
    ]


def only_error(stderr: str) -> str:
    (line,) = [line for line in stderr.splitlines() if "error: " in line]
    assert "\nTraceback" not in stderr
    return line


def test_training(shards: Path, tmp_path: Path) -> None:
    done = run_on_gpus("launch.train", training(shards, tmp_path / "run"), variables=MEMORY)
    assert done.returncode == 2, done.stderr
    line = only_error(done.stderr)
    assert re.search("error: not enough memory for this recipe " + NUMBERS.format(0), line)
    assert line.endswith("batch_size or fewer base_channels, or give --accumulate N or --recompute")
    assert "GPU stand-in, mixed precision no, 1 process\n" in done.stderr


@pytest.mark.distributed
def test_two_processes(shards: Path, tmp_path: Path) -> None:
    argv = training(shards, tmp_path / "run", "--processes", "2")
    two_gpus = {GPUS_VARIABLE: "2", "CUDA_VISIBLE_DEVICES": "0,1"}
    done = run_on_gpus("launch.train", argv, variables={**MEMORY, **two_gpus})
    assert done.returncode == 2, done.stderr
    assert re.search("error: not enough memory .*" + NUMBERS.format("[01]"), done.stderr)
    assert "died or hangs" not in done.stderr
    assert "Traceback" not in done.stderr


def test_scoring_and_colorizing(shards: Path, tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    run = ["--run", tmp_path / "run", "--batch-size", 16]
    done = run_on_gpus("launch.evaluate", [*run, "--shards", shards], variables=MEMORY)
    assert done.returncode == 2, done.stderr
    assert only_error(done.stderr).endswith("give a --batch-size below 16")
    for number in range(16):
        Image.new("RGB", (32, 32), (number, 90, 200)).save(tmp_path / f"{number}.png")
    photographs = sorted(tmp_path.glob("*.png"))
    options = ["--dropout", "off", "--out", tmp_path / "out"]
    less = {MEMORY_VARIABLE: str(1 << 18)}
    done = run_on_gpus("launch.colorize", [*run, *options, *photographs], variables=less)
    assert done.returncode == 2, done.stderr
    assert "--batch-size below 16, or --device cpu" in only_error(done.stderr)
