"""Copies between host and device for which the host does not wait."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

Key = TypeVar("Key", bound=Hashable)


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """Return an array as a tensor on `device`.

    On a CPU, the tensor shares the array's memory.
    """
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    # from memory that is not pinned, the host would wait for the copy
    return tensor.pin_memory().to(device, non_blocking=True)


class HostCopy(Generic[Key]):
    """Copies of tensors in host memory, which are complete after `wait`.

    Meanwhile the host may start more work on the device. Tensors on a CPU are not
    copied.
    """

    def __init__(self, tensors: Mapping[Key, Tensor]) -> None:
        self.copies = {key: _start_copy(tensor) for key, tensor in tensors.items()}
        self.copied: torch.cuda.Event | None = None
        if any(tensor.is_cuda for tensor in tensors.values()):
            self.copied = torch.cuda.Event()
            self.copied.record()

    def wait(self) -> dict[Key, np.ndarray]:
        """Wait for the copies, once for all, and return them by key."""
        if self.copied is not None:
            self.copied.synchronize()
        return {key: copy.numpy() for key, copy in self.copies.items()}


def _start_copy(tensor: Tensor) -> Tensor:
    if not tensor.is_cuda:
        return tensor
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)
