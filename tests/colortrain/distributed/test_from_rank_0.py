"""What all ranks take over from rank 0, in a group of one rank."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from colortrain.distributed import from_rank_0
from colortrain.distributed.from_rank_0 import copy_from_rank_0, on_rank_0
from shards.errors import UserError


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """The tensors that rank 0 sends to this rank, in order."""
    tensors: list[Tensor] = []

    def broadcast(tensor: Tensor, source: int) -> None:
        assert source == 0
        assert tensor.is_contiguous()
        tensor.copy_(tensors.pop(0))

    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    yield tensors
    assert not tensors


def test_tensors_become_those_of_rank_0_in_place(sent: list[Tensor]) -> None:
    torch.manual_seed(0)
    weight = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    own = [weight, torch.tensor(7), torch.tensor([2.0, 4.0])]
    sent += [torch.rand(2, 3, 4, 5), torch.tensor(7), torch.tensor([2.0, 5.0])]
    expected = [tensor.clone() for tensor in sent]
    sent[0] = expected[0] = weight.detach().clone()
    assert copy_from_rank_0(own) == pytest.approx(1 / 5)
    for tensor, other in zip(own, expected, strict=True):
        assert torch.equal(tensor, other)
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("own", "other", "difference"),
    [
        ([1.0, -8.0], [1.0, -8.0], 0),
        ([float("nan"), 1.0], [float("nan"), 1.0], 0),
        ([float("nan"), 1.0], [2.0, 1.0], float("inf")),
        ([1e-3, 1.0], [0.0, 0.0], float("inf")),
    ],
)
def test_the_difference_is_relative_to_the_largest_value(
    sent: list[Tensor], own: list[float], other: list[float], difference: float
) -> None:
    sent.append(torch.tensor(other))
    result = copy_from_rank_0([torch.tensor(own)])
    assert result == difference or (difference == float("inf") and result > 1e30)


def test_an_error_of_rank_0_is_raised_on_all_ranks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sent: list[Any] = []

    def broadcast(outcome: list[Any]) -> list[Any]:
        sent[:] = sent or outcome
        return sent

    def fail() -> None:
        raise UserError("no such run")

    monkeypatch.setattr(from_rank_0, "broadcast_object_list", broadcast)
    for rank, compute in ((0, fail), (1, lambda: pytest.fail("computed on rank 1"))):
        accelerator: Any = SimpleNamespace(is_main_process=rank == 0, num_processes=2)
        with pytest.raises(UserError, match="no such run"):
            on_rank_0(compute, accelerator)
