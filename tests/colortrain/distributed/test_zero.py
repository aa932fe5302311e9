"""ZeRO: which configurations are refused.

`tests/distributed/test_zero.py` tests training with DeepSpeed on two processes.
"""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.zero import ZeroTrainableNetwork, zero_stage
from colortrain.recipe import Adam
from shards.errors import UserError


@pytest.mark.parametrize("stage", [1, 2])
def test_flat_weights_and_muon_are_refused(stage: int) -> None:
    module, accelerator = torch.nn.Linear(2, 2), Accelerator(cpu=True)
    with pytest.raises(UserError, match=r"generator_adam\.muon=0"):
        ZeroTrainableNetwork(module, Adam(muon=0.01), accelerator, stage=stage)


@pytest.mark.parametrize(
    "compute", [ComputeConfig(channels_last=True), ComputeConfig(compile=True)]
)
def test_other_memory_layouts_are_refused(compute: ComputeConfig) -> None:
    module, accelerator = torch.nn.Linear(2, 2), Accelerator(cpu=True)
    with pytest.raises(UserError, match="leave out --channels-last and --compile"):
        ZeroTrainableNetwork(module, Adam(), accelerator, compute)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
            "zero_stage 3 is not supported: use one of 0, 1, 2",
        ),
        ({}, "zero_stage none given is not supported"),
        (
            {
                "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2",
                "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu",
            },
            "offload_optimizer_device is not supported",
        ),
    ],
)
def test_unsupported_configurations_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name in (
        "ACCELERATE_DEEPSPEED_ZERO_STAGE",
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE",
    ):
        monkeypatch.delenv(name, raising=False)
    assert zero_stage() is None
    for name, value in {"ACCELERATE_USE_DEEPSPEED": "true", **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        zero_stage()
