"""Start-up refuses precisions and launches that would not do what was requested."""

from __future__ import annotations

import pytest
import torch
from accelerate.state import AcceleratorState

from colortrain.distributed.setup import (
    check_launch_variables,
    check_precision,
    check_world_size,
    make_accelerator,
)
from shards.errors import UserError


@pytest.mark.parametrize(
    ("precision", "device"), [("no", "cpu"), ("bf16", "cpu"), ("fp16", "cuda"), ("bf16", "cuda")]
)
def test_supported_precisions(precision: str, device: str) -> None:
    check_precision(precision, torch.device(device))


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("fp16", "requires a GPU"),
        ("fp8", "unknown mixed precision 'fp8'"),
        ("fp13", "nearest first: "),
    ],
)
def test_unsupported_precisions_are_refused(precision: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_precision(precision, torch.device("cpu"))


@pytest.mark.parametrize(
    ("variables", "num_processes", "message"),
    [
        ({"WORLD_SIZE": "2"}, 1, "2 processes were launched, but each would train alone"),
        ({"MASTER_PORT": "1", "ACCELERATE_USE_CPU": "True"}, 1, "accelerate started one"),
        ({}, 2, "accelerate reports rank 0 of 2, torch.distributed rank 0 of 1"),
    ],
)
def test_silent_fallbacks_to_single_processes_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], num_processes: int, message: str
) -> None:
    for name in ("WORLD_SIZE", "MASTER_PORT", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        check_world_size(num_processes, 0)


def test_one_process_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    check_world_size(1, 0)


TORCHRUN = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "1",
}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        TORCHRUN,
        {**TORCHRUN, "WORLD_SIZE": "1"},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"PMI_SIZE": "1", "PMI_RANK": "0"},
        {"PMI_SIZE": "2", "PMI_RANK": "1", "MASTER_ADDR": "a"},
        {"RANK": "3"},
        {"LOCAL_RANK": "-1"},
    ],
)
def test_complete_variables_of_a_launcher_are_accepted(variables: dict[str, str]) -> None:
    check_launch_variables(variables)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"WORLD_SIZE": "2"},
            "has WORLD_SIZE=2 but no MASTER_ADDR and no RANK, .*: unset WORLD_SI",
        ),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "has WORLD_SIZE=2 but no MASTER_ADDR, so no launcher"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "has WORLD_SIZE=2 but no RANK, so no launcher"),
        ({"PMI_SIZE": "4"}, "has PMI_SIZE=4 but .*: unset PMI_SIZE"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, "unset OMPI_COMM_WORLD_SIZE"),
        ({"LOCAL_RANK": "0"}, "has LOCAL_RANK=0 but no MASTER_ADDR and no RANK"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE='' in the environment is not a number: unset WORLD_SIZE"),
        ({**TORCHRUN, "RANK": "x"}, "RANK='x' in the environment is not a number"),
    ],
)
def test_variables_left_over_from_another_launcher_are_refused(
    variables: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_launch_variables(variables)


def test_processes_that_never_start_end_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    own = {**TORCHRUN, "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", **address}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(
        UserError, match=r"did not find each other \(.*: start all of them, or unset"
    ):
        make_accelerator(timeout=1)
    AcceleratorState._reset_state(reset_partial_state=True)
