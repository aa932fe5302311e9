"""Save checkpoints in the background: the training loop copies, a thread writes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colortrain.recipe import Recipe
from colortrain.runs.checkpoint import Tensors, save_checkpoint
from colortrain.runs.retention import Best, better, candidate_best, prune, save_best
from colortrain.training.journal import Journal

TensorFiles = Mapping[str, Tensors]  # file stem -> name -> tensor


class HostCopies:
    """Copies tensors to buffers in CPU memory, which the next copies use again."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[str, str], Tensor] = {}
        self.copied: torch.cuda.Event | None = None

    def copy(self, files: TensorFiles) -> dict[str, dict[str, Tensor]]:
        """Return copies of all tensors, by file stem and tensor name.

        Copies from a GPU are complete only after `wait`. The next call overwrites them.
        """
        copies = {
            file: {
                name: self._copy(file, name, tensor.detach()) for name, tensor in tensors.items()
            }
            for file, tensors in files.items()
        }
        self.buffers = {
            (file, name): copy for file, tensors in copies.items() for name, copy in tensors.items()
        }
        if any(tensor.is_cuda for tensors in files.values() for tensor in tensors.values()):
            self.copied = torch.cuda.Event()
            self.copied.record()
        return copies

    def _copy(self, file: str, name: str, tensor: Tensor) -> Tensor:
        buffer = self.buffers.get((file, name))
        if buffer is None or (buffer.shape, buffer.dtype) != (tensor.shape, tensor.dtype):
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        return buffer.copy_(tensor, non_blocking=True)

    def wait(self) -> None:
        """Wait until all tensors have been copied from the GPU to CPU memory."""
        if self.copied is not None:
            self.copied.synchronize()


@dataclass(frozen=True)
class WrittenCheckpoint:
    """What the journal records about a checkpoint that has been written."""

    step: int
    images: int
    stall: float  # seconds for which saving blocked the training loop
    seconds: float  # that the background thread spent on writing
    bytes: int


class CheckpointWriter:
    """Saves the checkpoints of a run from a background thread, on rank 0.

    Leaving its `with` block waits for a pending write.
    """

    def __init__(self, run: Path, recipe: Recipe, journal: Journal) -> None:
        self.run, self.recipe, self.journal = run, recipe, journal
        self.best: Best | None = None
        self.copies = HostCopies()  # take as much CPU memory as a checkpoint on disk
        self.thread = ThreadPoolExecutor(1, "checkpoint")
        self.pending: Future[WrittenCheckpoint] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.thread.shutdown(wait=True)

    def update_best(self, step: int, metrics: Mapping[str, Mapping[str, float]]) -> bool:
        """Return whether a step's scores are the best so far; if so, remember the step.

        metrics: metric -> "generated", "truth" or a baseline -> value.
        """
        if not self.recipe.keep_best:
            return False
        new = candidate_best(self.recipe.keep_best, step, metrics)
        if not better(new, self.best):
            return False
        self.best = new
        return True

    def save(self, step: int, files: TensorFiles, state: dict[str, Any], started: float) -> None:
        """Copy the tensors and the state of a checkpoint, and start writing the copies.

        files: file stem -> tensor name -> tensor. state: the content of trainer.json.
        started: the `time.monotonic()` at which the training loop stopped for this
        checkpoint.
        """
        self.wait()  # for the previous write
        state = {**state, "best": dataclasses.asdict(self.best) if self.best else None}
        copies, best = self.copies.copy(files), self.best
        stall = time.monotonic() - started
        self.pending = self.thread.submit(self._write, step, copies, state, best, stall)

    def poll(self) -> None:
        """Log the pending write if it has finished; called between training steps.

        Raises the error of the writing thread.
        """
        if self.pending is not None and self.pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the pending write has finished and log it.

        Raises the error of the writing thread.
        """
        pending, self.pending = self.pending, None
        if pending is not None:
            written = dataclasses.asdict(pending.result())
            self.journal.write("checkpoint", written.pop("step"), written)

    def _write(
        self, step: int, files: TensorFiles, state: dict[str, Any], best: Best | None, stall: float
    ) -> WrittenCheckpoint:
        started = time.monotonic()
        self.copies.wait()
        folder = save_checkpoint(self.run, step, files, self.recipe, state)
        if best is not None and best.step == step:
            save_best(self.run, best)  # before `prune` deletes the previous best one
        recipe = self.recipe
        best_step = best.step if best else None
        prune(self.run, step, recipe.keep_checkpoints, recipe.keep_every, best_step)
        size = sum(path.stat().st_size for path in folder.iterdir())
        return WrittenCheckpoint(step, state["images"], stall, time.monotonic() - started, size)
