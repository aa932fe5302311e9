"""Start-up refuses precisions and launches that would not do what was requested."""

from __future__ import annotations

import pytest
import torch

from colortrain.distributed.setup import check_precision, check_world_size
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
