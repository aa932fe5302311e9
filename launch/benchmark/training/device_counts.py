"""Count what training steps do on a GPU: operations, waits, copies and memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from colortrain.training.trainer import Trainer

# Operations that start no kernel: they return views, or allocate memory.
_VIEWS = (
    *("view", "reshape", "permute", "transpose", "t", "slice", "select", "expand", "unbind"),
    *("split", "split_with_sizes", "chunk", "detach", "as_strided", "alias", "squeeze"),
    *("unsqueeze", "narrow", "diagonal", "unfold", "_unsafe_view", "_reshape_alias"),
)
_NO_KERNEL = frozenset((*_VIEWS, "empty", "empty_like", "empty_strided", "new_empty", "is_pinned"))


@dataclass(frozen=True)
class StepCounts:
    """What one training step does on the device, the mean of a cycle of both networks.

    operations: calls of ATen operations with a tensor on the device, without views and
    allocations; most start one kernel. waits: times that the host waits for the device.
    to_device, to_host: bytes copied. resident: bytes on the device between steps
    (weights, gradients, optimizers, averaged weights). activations: bytes that a step
    needs in addition, at most.
    """

    operations: float
    waits: float
    to_device: float
    to_host: float
    resident: int
    activations: int


class OperationCounter(TorchDispatchMode):
    """Counts operations on device tensors, and the bytes copied from and to the device.

    Inside the `with` block; backward passes are included. `device` is the type of the
    device: with "cpu", operations are counted without a GPU, but no copies.
    """

    def __init__(self, device: str = "cuda") -> None:
        super().__init__()
        self.device = device
        self.operations = self.to_device = self.to_host = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the operation and count it."""
        result = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::").partition(".")[0]
        inputs, outputs = _tensors((args, kwargs)), _tensors(result)
        if name not in _NO_KERNEL and any(
            tensor.device.type == self.device for tensor in (*inputs, *outputs)
        ):
            self.operations += 1
        if name in ("copy_", "_to_copy"):
            self._count_copy(inputs[-1], outputs[0])
        return result

    def _count_copy(self, source: Tensor, target: Tensor) -> None:
        if target.is_cuda and not source.is_cuda:
            self.to_device += source.nbytes
        if source.is_cuda and not target.is_cuda:
            self.to_host += target.nbytes


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


@contextmanager
def count_waits() -> Iterator[list[str]]:
    """Yield a list; at the end it has a message for each wait for the device."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield messages
        finally:
            torch.cuda.set_sync_debug_mode("default")
            messages += [
                text for text in map(str, (w.message for w in caught)) if "synchronizing" in text
            ]


def count_steps(trainer: Trainer) -> StepCounts:
    """Return what the steps of a trainer on a GPU do, in the middle of its run.

    One cycle of both networks is taken before, which creates the optimizers' state, and
    one is counted, with reading its batches.
    """
    recipe = trainer.recipe
    cycle = max(recipe.n_critic, recipe.n_generator)
    trainer.step = trainer.total // recipe.batch_size // 2 // cycle * cycle
    trainer.images = trainer.step * recipe.batch_size
    with closing(trainer.loader.batches()) as batches:
        for _ in range(cycle):
            trainer.take_step(next(batches))
        resident = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        with OperationCounter() as counter, count_waits() as waits:
            for _ in range(cycle):
                trainer.take_step(next(batches))
        peak = torch.cuda.max_memory_allocated()
    return StepCounts(
        counter.operations / cycle,
        len(waits) / cycle,
        counter.to_device / cycle,
        counter.to_host / cycle,
        resident,
        peak - resident,
    )
