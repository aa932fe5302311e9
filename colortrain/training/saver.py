"""Checkpoints written beside the training: the loop copies tensors into memory, a thread brings them to disk.

One write at a time: the next save waits for it. The copies take as much memory on the CPU as a checkpoint on disk.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from colortrain.recipe import Recipe
from colortrain.runs.checkpoint import Tensors, save_checkpoint
from colortrain.runs.retention import Best, better, contender, prune, save_best
from colortrain.training.journal import Journal

Parts = Mapping[str, Tensors]


class Copies:
    """Copies of tensors in CPU memory that is used again for the next ones, pinned where the tensors are on a GPU."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[str, str], Tensor] = {}
        self.arrived: torch.cuda.Event | None = None

    def take(self, parts: Parts) -> dict[str, dict[str, Tensor]]:
        """Copies of all tensors; those from a GPU are complete after `wait`, whatever the next step does to them."""
        copies = {
            part: {
                name: self._copy(part, name, tensor.detach()) for name, tensor in tensors.items()
            }
            for part, tensors in parts.items()
        }
        self.buffers = {
            (part, name): copy for part, tensors in copies.items() for name, copy in tensors.items()
        }
        if any(tensor.is_cuda for tensors in parts.values() for tensor in tensors.values()):
            self.arrived = torch.cuda.Event()
            self.arrived.record()
        return copies

    def _copy(self, part: str, name: str, tensor: Tensor) -> Tensor:
        buffer = self.buffers.get((part, name))
        if buffer is None or (buffer.shape, buffer.dtype) != (tensor.shape, tensor.dtype):
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        return buffer.copy_(tensor, non_blocking=True)

    def wait(self) -> None:
        """Until all copies are complete."""
        if self.arrived is not None:
            self.arrived.synchronize()


@dataclass(frozen=True)
class Written:
    """What is told of a checkpoint once it counts; seconds that the loop stood still, and that the thread wrote."""

    step: int
    images: int
    stall: float
    seconds: float
    bytes: int


class Saver:
    """Saves a run's checkpoints, on the rank that writes; a `with` block ends with the write under way."""

    def __init__(self, run: Path, recipe: Recipe, journal: Journal) -> None:
        self.run, self.recipe, self.journal = run, recipe, journal
        self.best: Best | None = None
        self.copies = Copies()
        self.thread = ThreadPoolExecutor(1, "checkpoint")
        self.under_way: Future[Written] | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.thread.shutdown(wait=True)

    def see(self, step: int, metrics: Mapping[str, Mapping[str, float]]) -> bool:
        """Compare the scores of a step by the recipe's `keep_best`; return whether they are the best so far."""
        if not self.recipe.keep_best:
            return False
        new = contender(self.recipe.keep_best, step, metrics)
        if not better(new, self.best):
            return False
        self.best = new
        return True

    def save(self, step: int, parts: Parts, state: dict[str, Any], began: float) -> None:
        """Copy what a checkpoint holds and let it be written; the loop stands still since `began` (monotonic)."""
        self.wait()
        state = {**state, "best": dataclasses.asdict(self.best) if self.best else None}
        copies, best = self.copies.take(parts), self.best
        stall = time.monotonic() - began
        self.under_way = self.thread.submit(self._write, step, copies, state, best, stall)

    def poll(self) -> None:
        """Called between steps: journal a write that is done, raise what went wrong in it."""
        if self.under_way is not None and self.under_way.done():
            self.wait()

    def wait(self) -> None:
        """Until the checkpoint under way counts; raises what went wrong in its thread."""
        under_way, self.under_way = self.under_way, None
        if under_way is not None:
            written = dataclasses.asdict(under_way.result())
            self.journal.write("checkpoint", written.pop("step"), written)

    def _write(
        self, step: int, parts: Parts, state: dict[str, Any], best: Best | None, stall: float
    ) -> Written:
        began = time.monotonic()
        self.copies.wait()
        folder = save_checkpoint(self.run, step, parts, self.recipe, state)
        if best is not None and best.step == step:
            save_best(self.run, best)  # before `prune` takes the best one before it away
        recipe = self.recipe
        prune(
            self.run, step, recipe.keep_checkpoints, recipe.keep_every, best.step if best else None
        )
        size = sum(path.stat().st_size for path in folder.iterdir())
        return Written(step, state["images"], stall, time.monotonic() - began, size)
