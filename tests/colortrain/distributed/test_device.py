"""When training may start on the CPU, and what is printed if it may not.

Torch has no CUDA here, or reports a driver that is too old.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from colortrain.distributed import device
from colortrain.distributed.device import cuda_error, default_device, num_gpus
from shards.errors import PermanentError

OLD_DRIVER = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version from the URL: http://www.nvidia.com"
)
LAUNCHED = {"ACCELERATE_DYNAMO_BACKEND": "NO"}  # what accelerate launch always sets


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of launchers, and let torch have no CUDA."""
    for name in list(os.environ):
        if name.startswith("ACCELERATE_") or name == "CUDA_VISIBLE_DEVICES":
            monkeypatch.delenv(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "hip", None)


def set_driver(monkeypatch: pytest.MonkeyPatch, folder: Path, loaded: bool) -> None:
    file = folder / "nvidiactl"
    if loaded:
        file.touch()
    monkeypatch.setattr(device, "_NVIDIA_DRIVER", (str(file),))


@pytest.mark.parametrize(
    ("variables", "loaded"),
    [
        ({}, False),  # a laptop
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, False),
        ({"ACCELERATE_USE_CPU": "true"}, True),
        ({"ACCELERATE_USE_CPU": "1", **LAUNCHED}, True),
        ({"CUDA_VISIBLE_DEVICES": "-1,-1", **LAUNCHED}, True),  # cpu.yaml
        ({"CUDA_VISIBLE_DEVICES": ""}, True),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, True),
    ],
)
def test_the_cpu_is_used_where_it_is_meant(
    variables: dict[str, str], loaded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_driver(monkeypatch, tmp_path, loaded)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert num_gpus() == 0
    assert default_device() == torch.device("cpu")


@pytest.mark.parametrize(
    ("variables", "loaded", "advice"),
    [
        ({}, True, "export ACCELERATE_USE_CPU=true"),
        ({"ACCELERATE_USE_CPU": "false"}, False, "export ACCELERATE_USE_CPU=true"),  # SLURM
        ({"ACCELERATE_USE_CPU": "False", **LAUNCHED}, False, "launch/accelerate/cpu.yaml"),
        (LAUNCHED, False, "launch/accelerate/cpu.yaml"),  # ddp.yaml
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, False, "launch/accelerate/cpu.yaml"),  # zero1.yaml
        ({"CUDA_VISIBLE_DEVICES": "", **LAUNCHED}, True, "launch/accelerate/cpu.yaml"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, True, "export ACCELERATE_USE_CPU=true"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_one_line(
    variables: dict[str, str],
    loaded: bool,
    advice: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def init() -> None:
        raise RuntimeError(OLD_DRIVER)

    set_driver(monkeypatch, tmp_path, loaded)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)  # as NVML counts
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PermanentError) as raised:
        num_gpus()
    expected = (
        f"no GPU can be used: torch {torch.__version__} says 'The NVIDIA driver on your system is "
        "too old (found version 11040)'; to use the CPU, "
    )
    assert str(raised.value).startswith(expected)
    assert str(raised.value).endswith(advice)


def test_gpus_are_counted_unless_the_cpu_is_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert num_gpus() == 4
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert num_gpus() == 0


@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="for a torch without CUDA")
def test_a_torch_without_cuda_says_so() -> None:
    assert cuda_error().endswith("'Torch not compiled with CUDA enabled'")
