"""Starting several processes: how many, with which configuration, and their exit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from colortrain.recipes import get_recipe
from launch.processes import (
    CONFIGS,
    check_processes,
    config_file,
    launch_command,
    memory_mb,
    mixed_precision,
    num_processes_for,
    training_launcher,
)
from shards.errors import UserError
from tests.support.gpus import pretend_gpus
from tests.support.processes import ROOT


@pytest.mark.parametrize(
    ("recipe", "gpus", "processes"),
    [
        ("flagship", 0, 1),
        ("flagship", 3, 2),
        ("flagship", 4, 4),
        ("flagship", 6, 4),
        ("nampouri_unet", 0, 1),
        ("nampouri_unet", 8, 1),
        ("drouilhet_progan", 8, 1),
    ],
)
def test_networks_that_are_compared_see_the_same_images_at_a_time_on_any_machine(
    recipe: str, gpus: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch of `flagship` is 8 images; the others have batch statistics."""
    pretend_gpus(monkeypatch, gpus)
    assert num_processes_for(get_recipe(recipe)) == processes
    command = training_launcher(get_recipe(recipe))
    if gpus:
        assert command[-2:] == ["--num_processes", str(processes)]
    else:
        assert command == [sys.executable]


@pytest.mark.parametrize(
    ("gpus", "processes", "name", "precision"),
    [(0, 2, "cpu", "no"), (1, 1, "one_gpu", "bf16"), (4, 4, "ddp", "bf16")],
)
def test_the_configuration_depends_on_the_devices(
    gpus: int, processes: int, name: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(monkeypatch, gpus)
    assert config_file(processes) == CONFIGS / f"{name}.yaml"
    assert mixed_precision(processes) == precision
    command = launch_command()
    assert command[command.index("--config_file") + 1] == str(CONFIGS / f"{name}.yaml")
    assert command[-2:] == ["--num_processes", str(processes)]


def test_more_processes_than_gpus_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 2)
    check_processes(2)
    with pytest.raises(UserError, match=r"^--ranks 3: give a number from 1 to 2$"):
        check_processes(3, "--ranks")
    pretend_gpus(monkeypatch, 0)
    check_processes(3)
    with pytest.raises(UserError, match="--processes 0: give a number from 1 to the number of"):
        check_processes(0)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_is_valid_yaml(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    assert config["compute_environment"] == "LOCAL_MACHINE"
    assert config["mixed_precision"] in ("no", "bf16")


@pytest.mark.parametrize("world", ["1", "2"])
def test_one_of_several_processes_exits_without_teardown(world: str) -> None:
    code = (
        "import atexit; from launch.processes import exit_process; "
        "atexit.register(print, 'teardown'); print('done'); exit_process(7)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "WORLD_SIZE": world},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7
    assert done.stdout == ("done\nteardown\n" if world == "1" else "done\n")


def test_memory_is_in_mib() -> None:
    before = memory_mb("RssAnon")
    held = np.ones(2**24)  # 128 MiB
    assert memory_mb("RssAnon") - before == pytest.approx(held.nbytes / 2**20, abs=16)
