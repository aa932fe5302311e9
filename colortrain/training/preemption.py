"""Stop early on SIGUSR2 or SIGTERM: all ranks agree on it between two steps."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch import nn
from torch.distributed import ReduceOp, all_gather, all_reduce

# Clusters announce the end of a job (time limit, preemption, drained node) by a signal
# and kill the job seconds later. The signal reaches some ranks or all, at any point of
# the program, so the handler only sets a flag.
_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
_stop_requested = False


def stop_requested() -> bool:
    """Return whether this process got SIGUSR2 or SIGTERM inside `handling_signals`."""
    return _stop_requested


@contextmanager
def handling_signals() -> Iterator[None]:
    """Let SIGUSR2 and SIGTERM request a stop inside the `with` block."""
    global _stop_requested
    _stop_requested = False
    # Python handles signals in the main thread only
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def handler(number: int, frame: FrameType | None) -> None:
        global _stop_requested
        # a forked child inherits this handler and must not stop
        _stop_requested = _stop_requested or os.getpid() == owner

    previous = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old_handler in previous.items():
            signal.signal(number, old_handler)


class SharedStopFlag:
    """Whether a stop was requested on any rank; all ranks get the same answer."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pending: tuple[torch.Tensor, torch.cuda.Event | None] | None = None

    def is_set(self) -> bool:
        """Return whether any rank had a stop request at the previous step boundary.

        All ranks must call it at every step boundary.
        """
        if not torch.distributed.is_initialized():
            return stop_requested()
        # read one boundary later, so that on a GPU no rank waits for the step that it
        # has just launched
        previous, self.pending = self.pending, self._start_reduce()
        if previous is None:
            return False
        flag, copied = previous
        if copied is not None:
            copied.synchronize()
        return bool(flag.item())

    def _start_reduce(self) -> tuple[torch.Tensor, torch.cuda.Event | None]:
        # torch.full, because torch.tensor would wait for the device
        flag = torch.full((1,), int(stop_requested()), device=self.device)
        all_reduce(flag, ReduceOp.MAX)
        if self.device.type != "cuda":
            return flag, None
        on_host = torch.empty(1, dtype=flag.dtype, pin_memory=True).copy_(flag, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return on_host, copied


def gather_bn_stats(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the BatchNorm running statistics of every rank, by buffer name.

    Each tensor is (world size, ...). All ranks must call it.
    """
    # Only scheduled checkpoints average the ranks' statistics. A checkpoint that is
    # saved at another step, because the run stops, stores them for each rank instead:
    # averaging them there would change the result of the run.
    gathered = {}
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            per_rank = [torch.empty_like(buffer) for _ in range(torch.distributed.get_world_size())]
            all_gather(per_rank, buffer.contiguous())
            gathered[name] = torch.stack(per_rank)
    return gathered


@torch.no_grad()
def restore_bn_stats(module: nn.Module, per_rank: dict[str, torch.Tensor], rank: int) -> None:
    """Load the running statistics of one rank into the BatchNorm layers of `module`.

    `per_rank` holds the statistics of all ranks, from `gather_bn_stats`.
    """
    for name, buffer in module.named_buffers():
        if name in per_rank:
            buffer.copy_(per_rank[name][rank])
