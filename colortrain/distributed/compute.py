"""How a machine computes a step, apart from what the step is: facts of one start, not of the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from colortrain.models.batch_invariant import KeyedDropout, frozen_bn_stats, replace_dropout
from colortrain.models.resnet18 import BasicBlock
from shards.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """May differ from one start of a run to the next: the same photographs, the same steps but for rounding.

    accumulate: microbatches that each process makes of its share of a global batch, one after the other in less memory
    (BatchNorm takes its statistics over each).
    """

    accumulate: int = 1
    channels_last: bool = False  # the memory layout that most convolutions like best
    fused_adam: bool = False  # on CPUs; on GPUs it always is
    compile: bool = False  # the generator, and a critic without a penalty
    recompute: bool = (
        False  # the generator's activations, block by block in the backward pass, to keep less
    )
    max_skipped: int = 50  # updates in a row that may fail before the run ends

    def __post_init__(self) -> None:
        if self.accumulate < 1 or self.max_skipped < 1:
            raise UserError("--accumulate and --max-skipped must be at least 1")
        if self.compile and self.recompute:
            raise UserError("--compile chooses by itself what to recompute: leave out --recompute")

    def check_share(self, batch_size: int, world: int) -> None:
        """Raise `UserError` unless each process can divide its share into equal microbatches."""
        share = batch_size // world
        if share % self.accumulate:
            divisors = [n for n in range(1, share + 1) if share % n == 0]
            raise UserError(
                f"--accumulate {self.accumulate}: each of {world} processes has {share} pictures of a batch; "
                f"use one of {divisors}"
            )

    def arrange(self, module: nn.Module, *, compiles: bool, recomputes: bool) -> nn.Module:
        """Make `module` ready to train, in place; its tensors keep their names."""
        replace_dropout(module)
        if self.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.recompute and recomputes:
            recompute_blocks(module)
        if self.compile and compiles:
            module.compile()
        return module


def recompute_blocks(module: nn.Module) -> None:
    """Keep only what goes into each block of a U-Net, the items of its lists, and compute the rest again."""
    lists = [child for child in module.modules() if isinstance(child, nn.ModuleList)]
    blocks = [block for blocks in lists for block in blocks]
    blocks += [
        child for child in module.modules() if isinstance(child, BasicBlock)
    ]  # ResNet-18 has no lists
    for block in blocks:
        block.forward = partial(_recomputed, block, block.forward)


def _recomputed(block: nn.Module, forward: Any, *inputs: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(*inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _as_before(block)

    # dropout draws by keys, not from the generator's state
    return checkpoint(
        forward, *inputs, use_reentrant=False, context_fn=contexts, preserve_rng_state=False
    )


def _as_before(block: nn.Module) -> AbstractContextManager[None]:
    """A context in which `block` drops what it drops now, and remembers no statistics a second time."""
    keys = [(layer, layer.keys) for layer in block.modules() if isinstance(layer, KeyedDropout)]

    @contextmanager
    def again() -> Iterator[None]:
        now = [layer.keys for layer, _ in keys]
        for layer, before in keys:
            layer.keys = before
        try:
            with frozen_bn_stats(block):
                yield
        finally:  # torch leaves by an exception once it has all it needs
            for (layer, _), current in zip(keys, now, strict=True):
                layer.keys = current

    return again()
