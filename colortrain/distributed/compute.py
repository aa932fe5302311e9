"""Options for how training steps are computed; they are not part of the recipe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from colortrain.models.batch_invariant import KeyedDropout, frozen_bn_stats, replace_dropout
from colortrain.models.residual_unet import ResidualUNet
from colortrain.models.resnet18 import BasicBlock
from shards.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Options for how training steps are computed; they may change when a run resumes.

    Only `accumulate` changes results by more than rounding: BatchNorm computes its
    statistics per microbatch. Raises UserError for options that are out of range or
    exclude each other.
    """

    accumulate: int = 1  # microbatches per local batch, to use less memory
    # the fastest memory format for most convolutions; None: see `compute_defaults`
    channels_last: bool | None = None
    fused_adam: bool = False  # on CPUs; on GPUs Adam is always fused
    # generator, and critic unless it has a penalty; None: see `compute_defaults`
    compile: bool | None = None
    recompute: bool = False  # activation checkpointing of the generator's blocks
    deterministic: bool = False  # equal bits in each repetition of a run, on GPUs too
    resync: bool = False  # copy rank 0's tensors to all ranks before validations and saves
    max_skipped: int = 50  # consecutive skipped updates after which the run ends

    def __post_init__(self) -> None:
        if self.accumulate < 1 or self.max_skipped < 1:
            raise UserError(
                "--accumulate and --max-skipped must be at least 1, "
                f"got {self.accumulate} and {self.max_skipped}"
            )
        if self.compile and self.recompute:
            raise UserError(
                "--compile and --recompute exclude each other, because the compiler chooses "
                "what to recompute: leave out --recompute"
            )

    def check_microbatches(self, batch_size: int, world_size: int) -> None:
        """Raise UserError unless each local batch can be split into equal microbatches.

        `batch_size` is the global batch size, over all `world_size` processes.
        """
        local = batch_size // world_size
        if local % self.accumulate:
            divisors = [n for n in range(1, local + 1) if local % n == 0]
            raise UserError(
                f"--accumulate {self.accumulate} does not divide the {local} images of a batch "
                f"that each of {world_size} processes has; use one of {divisors}"
            )

    def named(self) -> dict[str, bool]:
        """Return the options that are worth recording with a run, if they are on."""
        names = ("channels_last", "compile", "resync")
        return {name: True for name in names if getattr(self, name)}

    def apply_to_process(self, device: torch.device) -> None:
        """Apply the options that torch has for the whole process, not for a network.

        On a GPU, cuDNN measures which algorithms are fastest, unless `deterministic` is
        set. With it, torch raises RuntimeError in an operation that has no
        deterministic implementation on the device. Neither has been tried on a GPU.
        """
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = not self.deterministic
        if self.deterministic:
            # cuBLAS reads it at the first matrix product
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)

    def apply_to(self, module: nn.Module, *, compiles: bool, recomputes: bool) -> nn.Module:
        """Apply the options to a network, in place, and return the network.

        `compiles` and `recomputes` say whether the network supports `torch.compile` and
        activation checkpointing.
        """
        replace_dropout(module)
        if self.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.recompute and recomputes:
            recompute_blocks(module)
        if self.compile and compiles:
            module.compile()  # unlike torch.compile, this keeps the parameters' names
        return module


def is_channels_last(module: nn.Module) -> bool:
    """Return whether a network is in the channels_last memory format."""
    # a kernel of one pixel, or of one channel, is in both formats
    kernels = [each for each in module.parameters() if each.ndim == 4]
    return any(not each.is_contiguous() for each in kernels)


def recompute_blocks(module: nn.Module) -> None:
    """Turn on activation checkpointing for each block of a network, in place.

    With a `ResidualUNet`, also for what is computed from its logits.
    """
    # The blocks of a U-Net are the items of its ModuleLists. Only a block's input is
    # kept until the backward pass, which computes the activations again.
    lists = [child for child in module.modules() if isinstance(child, nn.ModuleList)]
    blocks = [block for blocks in lists for block in blocks]
    # An empty block computes nothing: keeping its input would only cost memory.
    blocks = [block for block in blocks if next(block.parameters(), None) is not None]
    blocks += [child for child in module.modules() if isinstance(child, BasicBlock)]
    for block in blocks:
        block.forward = partial(_recomputed, block, block.forward)
    if isinstance(module, ResidualUNet):
        module.recompute_logits = True


def _recomputed(block: nn.Module, forward: Any, *inputs: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(*inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _same_dropout_frozen_stats(block)

    # dropout masks depend on seeds, not on torch's global generator
    return checkpoint(
        forward, *inputs, use_reentrant=False, context_fn=contexts, preserve_rng_state=False
    )


def _same_dropout_frozen_stats(block: nn.Module) -> AbstractContextManager[None]:
    """Return a context manager for the second computation of a block's activations."""
    # With the first computation's seeds the dropout masks are the same. Frozen
    # statistics are not updated a second time.
    saved = [(layer, layer.seeds) for layer in block.modules() if isinstance(layer, KeyedDropout)]

    @contextmanager
    def context() -> Iterator[None]:
        current = [layer.seeds for layer, _ in saved]
        for layer, seeds in saved:
            layer.seeds = seeds
        try:
            with frozen_bn_stats(block):
                yield
        finally:  # torch exits by an exception as soon as it has recomputed all it needs
            for (layer, _), seeds in zip(saved, current, strict=True):
                layer.seeds = seeds

    return context()
