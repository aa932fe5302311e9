"""Device and precision of the processes of a job."""

from __future__ import annotations

import os

import pytest
import torch

from slurm import devices

GPU = {"SLURM_GPUS_ON_NODE": "2"}
NO_CPU = {"ACCELERATE_USE_CPU": "false"}


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Make torch report GPUs of the given compute capabilities."""
    capabilities = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H100")
    monkeypatch.setattr(torch.version, "hip", None)


@pytest.mark.parametrize(
    ("gpus", "environment", "expected"),
    [
        ([(9, 0), (9, 0)], GPU, {"ACCELERATE_MIXED_PRECISION": "bf16", **NO_CPU}),
        ([(7, 0), (7, 0)], GPU, {"ACCELERATE_MIXED_PRECISION": "no", **NO_CPU}),  # V100
        ([(8, 0), (7, 5)], GPU, {"ACCELERATE_MIXED_PRECISION": "no", **NO_CPU}),  # all ranks agree
        ([(9, 0)], {**GPU, "ACCELERATE_MIXED_PRECISION": "fp16"}, NO_CPU),
        # a site that does not manage its GPUs through SLURM
        ([(9, 0)], {}, {"ACCELERATE_MIXED_PRECISION": "bf16"}),
        # an old driver: SLURM gave GPUs, so training on the CPU would be an error
        ([], GPU, {"ACCELERATE_MIXED_PRECISION": "no", **NO_CPU}),
        ([], {}, {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "true"}),
        (
            [],
            {"SLURM_GPUS_ON_NODE": "0", "ACCELERATE_USE_CPU": "false"},
            {"ACCELERATE_MIXED_PRECISION": "no"},
        ),
    ],
    indirect=["gpus"],
)
def test_gpus_that_have_bf16_use_it(
    gpus: None, environment: dict[str, str], expected: dict[str, str]
) -> None:
    assert devices.accelerate_variables(environment) == expected


@pytest.mark.parametrize(
    ("gpus", "text"),
    [
        ([(9, 0)] * 4, "4 x NVIDIA H100, mixed precision: bf16"),
        ([], "no GPU, mixed precision: no"),
    ],
    indirect=["gpus"],
)
def test_the_log_names_devices_and_precision(
    gpus: None, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    for name in ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_CPU", "SLURM_GPUS_ON_NODE"):
        monkeypatch.setenv(name, "")  # so that the test's changes are undone
        monkeypatch.delenv(name)
    devices.export_variables()
    assert devices.describe_devices() == text
    assert ("ACCELERATE_USE_CPU" in os.environ) == ("no GPU" in text)
