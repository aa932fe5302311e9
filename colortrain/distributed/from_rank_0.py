"""Results, errors and tensors that all ranks take over from rank 0."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from shards.errors import UserError

T = TypeVar("T")


def on_rank_0(compute: Callable[[], T], accelerator: Accelerator) -> T:
    """Return, on all ranks, what `compute` returns on rank 0.

    All ranks must call it. If `compute` raises UserError, all ranks raise it.
    """
    if accelerator.num_processes == 1:
        return compute()
    outcome: list[Any] = [None, None]  # the value, and the line of an error
    if accelerator.is_main_process:
        try:
            outcome[0] = compute()
        except UserError as error:
            outcome[1] = str(error)
    value, line = broadcast_object_list(outcome)
    if line is not None:
        raise UserError(line)
    return value


@torch.no_grad()
def copy_from_rank_0(tensors: Iterable[Tensor]) -> float:
    """Overwrite tensors by those of rank 0; return how much this rank's differed.

    The result is the largest difference of two elements, divided by the largest
    magnitude in the tensor; 0 on rank 0. All ranks must call it, in a process group,
    with as many tensors of the same shapes in the same order, all on one device.
    """
    differences = [_copy_one(tensor) for tensor in tensors]
    # one wait for the device
    return max(torch.stack(differences).tolist()) if differences else 0.0


def _copy_one(tensor: Tensor) -> Tensor:
    # NCCL and gloo require contiguous memory
    received = tensor.clone(memory_format=torch.contiguous_format)
    torch.distributed.broadcast(received, 0)
    same = (received == tensor) | (received.isnan() & tensor.isnan())
    one, other = received.double(), tensor.double()
    tensor.copy_(received)
    largest = one.nan_to_num(nan=0.0).abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    difference = torch.where(same, 0.0, (one - other).abs()).max() / largest
    return difference.nan_to_num(nan=torch.inf, posinf=torch.inf)
