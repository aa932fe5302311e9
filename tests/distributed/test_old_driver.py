"""Commands on a machine whose GPU cannot be used: none trains silently on the CPU."""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from shards.errors import run_command
from tests.support import old_driver
from tests.support.processes import ROOT, command, environment, gpu_command
from tests.support.small_run import SETTINGS, small_run
from tests.support.small_shard_set import small_set

MODULE = "tests.support.old_driver"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), count=8, splits=("train", "val"))


def training(shards: Path, run: Path) -> list[str]:
    sets = [arg for setting in (*SETTINGS, "batch_size=2") for arg in ("--set", setting)]
    return [
        *("launch.train", "--recipe", "nampouri_unet", "--shards", str(shards)),
        *("--run", str(run), "--tracker", "none", "--images", "4", *sets),
    ]


def start(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    variables = environment()
    variables.pop("CUDA_VISIBLE_DEVICES", None)
    return subprocess.run(
        command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.distributed
@pytest.mark.parametrize(("config", "processes"), [("one_gpu.yaml", 1), ("ddp.yaml", 2)])
def test_configurations_for_gpus_do_not_train_on_the_cpu(
    shards: Path, tmp_path: Path, config: str, processes: int
) -> None:
    run = tmp_path / "run"
    done = start(gpu_command(MODULE, training(shards, run), processes, config=config))
    assert done.returncode == 1  # of accelerate launch
    (line,) = [line for line in done.stderr.splitlines() if old_driver.MESSAGE in line]
    assert line.startswith("colortrain train: error: no GPU can be used: torch ")
    assert line.endswith("launch/accelerate/cpu.yaml")
    assert not (run / "metrics.jsonl").exists()


@pytest.mark.distributed
def test_the_configuration_for_cpus_trains_on_the_cpu(shards: Path, tmp_path: Path) -> None:
    done = start(command(MODULE, training(shards, tmp_path / "run"), processes=2))
    assert done.returncode == 0, done.stderr
    line = "CPU with 1 thread per process, mixed precision no, 2 processes"
    assert done.stderr.splitlines().count(line) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["launch.train"],
        ["launch.train", "--processes", "2"],
        ["launch.evaluate"],
        ["launch.compare"],
        ["launch.demo"],
        ["launch.reproduce"],
        ["launch.benchmark", "step"],
        ["launch.benchmark", "scaling"],
        ["launch.benchmark", "checkpoint"],
        ["launch.colorize"],
    ],
    ids=" ".join,
)
def test_commands_are_refused_before_they_do_any_work(
    shards: Path,
    tmp_path: Path,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old_driver.pretend(monkeypatch.setattr)
    for name in ("CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    run, out = tmp_path / "run", tmp_path / "out"
    small_run(run)
    more: dict[str, list[object]] = {
        "launch.train": [*training(shards, out)[1:]],
        "launch.evaluate": ["--run", run, "--shards", shards],
        "launch.compare": ["--shards", shards, "--out", out, "--images", 4],
        "launch.demo": ["--out", out],
        "launch.reproduce": ["photos", "--source", run, "--out", out, "--budget", "images:4"],
        "launch.benchmark": ["--shards", shards, "--set", "size=32", "--set", "generator.levels=3"],
        "launch.colorize": ["--run", run, "--out", out, ROOT / "docs"],
    }
    module, *rest = arguments
    argv = [*rest, *map(str, more[module])]
    assert run_command(module, importlib.import_module(module).main, argv) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert ": error: no GPU can be used: torch " in line
    assert line.endswith(f"{old_driver.MESSAGE}'; to use the CPU, export ACCELERATE_USE_CPU=true")
    assert not list(out.glob("**/*.jsonl"))
