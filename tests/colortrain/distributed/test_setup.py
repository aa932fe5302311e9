"""Start-up refuses what would train something else than was asked for."""

from __future__ import annotations

import pytest
import torch

from colortrain.distributed.setup import check_precision, check_world
from shards.errors import UserError


@pytest.mark.parametrize(
    ("precision", "device"), [("no", "cpu"), ("bf16", "cpu"), ("fp16", "cuda"), ("bf16", "cuda")]
)
def test_precisions_that_work(precision: str, device: str) -> None:
    check_precision(precision, torch.device(device))


@pytest.mark.parametrize(
    ("precision", "said"),
    [
        ("fp16", "needs a GPU"),
        ("fp8", "unknown mixed precision 'fp8'"),
        ("fp13", "nearest first: "),
    ],
)
def test_precisions_that_would_be_ignored(precision: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_precision(precision, torch.device("cpu"))


@pytest.mark.parametrize(
    ("variables", "num_processes", "said"),
    [
        ({"WORLD_SIZE": "2"}, 1, "2 processes were launched, but each would train alone"),
        ({"MASTER_PORT": "1", "ACCELERATE_USE_CPU": "True"}, 1, "accelerate started one"),
        ({}, 2, "accelerate counts 2 processes, torch.distributed 1"),
    ],
)
def test_silent_fallbacks_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], num_processes: int, said: str
) -> None:
    for name in ("WORLD_SIZE", "MASTER_PORT", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=said):
        check_world(num_processes, 0)


def test_one_plain_process_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    check_world(1, 0)
