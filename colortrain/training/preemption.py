"""Leaving early and in good order: USR2 or TERM asks for it, all ranks agree on it between two steps.

Clusters announce the end of a job by a signal (a time limit, a preemption, a node that is emptied) and kill it seconds
later. The signal reaches some ranks or all, between any two instructions: so it sets a flag here, and nothing more.
"""

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

_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
_asked = False


def stop_requested() -> bool:
    """Whether this process got USR2 or TERM since `handling_signals` began."""
    return _asked


@contextmanager
def handling_signals() -> Iterator[None]:
    """Hear USR2 and TERM inside the block, and put the handlers before it back; children by fork ignore both."""
    global _asked
    _asked = False
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets the main thread alone handle signals
        return
    owner = os.getpid()

    def note(number: int, frame: FrameType | None) -> None:
        global _asked
        _asked = (
            _asked or os.getpid() == owner
        )  # a forked child inherits this handler: it must not answer for us

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopVote:
    """The ranks' agreement to stop: one is enough, and all learn of it at the same step boundary.

    The answer comes one boundary late, so that on a GPU no rank waits for the step it has just begun.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cast: tuple[torch.Tensor, torch.cuda.Event | None] | None = None

    def carried(self) -> bool:
        """Called by every rank at every step boundary: whether any had been asked to stop at the boundary before."""
        if not torch.distributed.is_initialized():
            return stop_requested()
        earlier, self.cast = self.cast, self._vote()
        if earlier is None:
            return False
        answer, arrived = earlier
        if arrived is not None:
            arrived.synchronize()
        return bool(answer.item())

    def _vote(self) -> tuple[torch.Tensor, torch.cuda.Event | None]:
        vote = torch.full(
            (1,), int(stop_requested()), device=self.device
        )  # torch.tensor would wait for the device
        all_reduce(vote, ReduceOp.MAX)
        if self.device.type != "cuda":
            return vote, None
        answer = torch.empty(1, dtype=vote.dtype, pin_memory=True).copy_(vote, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return answer, arrived


def gather_rank_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Every rank's running statistics, (world, ...) by buffer name; all ranks call it.

    Ranks keep their own between two checkpoints that the recipe asks for. One more checkpoint in between must not
    average them, or the run would not end as it would have without.
    """
    found = {}
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            of_ranks = [torch.empty_like(buffer) for _ in range(torch.distributed.get_world_size())]
            all_gather(of_ranks, buffer.contiguous())
            found[name] = torch.stack(of_ranks)
    return found


@torch.no_grad()
def restore_rank_buffers(module: nn.Module, of_ranks: dict[str, torch.Tensor], rank: int) -> None:
    """Put this rank's share of `gather_rank_buffers` back."""
    for name, buffer in module.named_buffers():
        if name in of_ranks:
            buffer.copy_(of_ranks[name][rank])
