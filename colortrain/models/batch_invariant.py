"""Layers whose results do not depend on how a global batch is divided.

They give the same results on any number of processes and microbatches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import all_reduce
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from colortrain.models.norms import MinibatchStddev

_GOLDEN = 0x9E3779B1 - 2**32  # 2^32 over the golden ratio, odd; as int32


def _hash_int32(x: Tensor) -> Tensor:
    """Return a pseudo-random hash of each int32 element of a tensor."""
    # lowbias32, by Wellons: if one bit of x is flipped, each bit of the hash flips with
    # a probability of about one half
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * (0x846CA68B - 2**32)
    return x ^ ((x >> 16) & 0xFFFF)


def image_keys(seed: int, step: int, first: int, count: int) -> Tensor:
    """Return a pseudo-random key for each image of a training step, (count,) int32.

    A key depends only on `seed`, `step` and the image's position in the global batch.
    The positions are `first` to `first + count - 1`. The keys are on the CPU.
    """
    # the text determines the random draws: changing it would change every run
    digest = hashlib.blake2b(f"{seed}/{step}/pictures".encode(), digest_size=4).digest()
    indices = torch.arange(first, first + count, dtype=torch.int32)
    return _hash_int32(indices * _GOLDEN + int.from_bytes(digest, "big", signed=True))


class KeyedDropout(nn.Dropout):
    """Dropout whose mask depends on a key of the image instead of on a random state.

    The mask also depends on `layer`, the number of this layer in the network. With
    `whole_channels`, whole channels are dropped, as in `nn.Dropout2d`. `seeds` is set
    by `dropout_keys`: one int32 seed per image, (B,), from the image's key and `layer`.
    """

    seeds: Tensor | None = None  # not a buffer, so not part of the state dict

    def __init__(self, p: float, layer: int, whole_channels: bool) -> None:
        super().__init__(p)
        self.layer, self.whole_channels = layer, whole_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (B, C, ...) with values set to 0 or, if kept, divided by 1 - p."""
        if not self.training or self.p == 0:
            return x
        # outside a training step: torch's random generator, like the layer that was
        # replaced
        if self.seeds is None:
            return F.dropout2d(x, self.p) if self.whole_channels else F.dropout(x, self.p)
        shape = [*x.shape[:2], *(1 for _ in x.shape[2:])] if self.whole_channels else list(x.shape)
        keep = uniform_int32(self.seeds, shape) >= round(self.p * 2**32) - 2**31
        return torch.where(keep, x / (1 - self.p), 0)


def uniform_int32(seeds: Tensor, shape: list[int]) -> Tensor:
    """Return pseudo-random int32 values of `shape`, uniform over all int32 values.

    seeds: (B,) int32, one per image. shape: (B, ...).
    """
    count = torch.Size(shape[1:]).numel()
    seeds = seeds.view(-1, 1)
    counters = torch.arange(count, dtype=torch.int32, device=seeds.device) * _GOLDEN
    return _hash_int32(_hash_int32(counters ^ seeds) + seeds).view(shape)


def replace_dropout(module: nn.Module) -> nn.Module:
    """Replace every dropout layer in `module` by a `KeyedDropout`; return `module`."""
    layers = [
        (parent, name)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, _DropoutNd)
    ]
    for layer, (parent, name) in enumerate(layers):
        old = getattr(parent, name)
        new = KeyedDropout(old.p, layer, isinstance(old, nn.Dropout2d)).train(old.training)
        setattr(parent, name, new)
    return module


@contextmanager
def dropout_keys(
    module: nn.Module, keys: Tensor, device: torch.device | str = "cpu"
) -> Iterator[None]:
    """Make the `KeyedDropout` layers of `module` use `keys` inside the `with` block.

    keys: (B,) int32 on the CPU, one per image of the batch. `device` is the device of
    the batch.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, KeyedDropout)]
    if not layers:
        yield
        return
    # computed on the CPU: starting these small operations would take a GPU longer
    numbers = torch.tensor([layer.layer for layer in layers], dtype=torch.int32)
    seeds = _to_device(_hash_int32(numbers[:, None] + keys), torch.device(device))
    for layer, row in zip(layers, seeds, strict=True):
        layer.seeds = row
    try:
        yield
    finally:
        for layer in layers:
            layer.seeds = None


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    # only a copy from pinned memory does not make the CPU wait for the GPU
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


@contextmanager
def frozen_bn_stats(module: nn.Module) -> Iterator[None]:
    """Keep BatchNorm's running statistics unchanged inside the `with` block.

    The BatchNorm layers of `module` still normalise by the statistics of the batch.
    """
    norms = [child for child in module.modules() if isinstance(child, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, count) in zip(norms, before, strict=True):
        # track_running_stats stays on, because activation checkpointing requires that
        # autograd saves the same tensors as in a normal forward pass
        norm.momentum = 0.0
        # only torch's SyncBatchNorm needs a count
        needs_count = isinstance(norm, nn.SyncBatchNorm)
        norm.num_batches_tracked = count.clone() if needs_count and count is not None else None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


@contextmanager
def restore_finite_bn_stats(*modules: nn.Module) -> Iterator[None]:
    """Undo changes of BatchNorm's running statistics to infinity or NaN.

    At the end of the `with` block, elements that are infinite or NaN get the values
    that they had at its start.
    """
    norms = [
        child for module in modules for child in module.modules() if isinstance(child, _BatchNorm)
    ]
    stats = [
        each for norm in norms for each in (norm.running_mean, norm.running_var) if each is not None
    ]
    if not stats:
        yield
        return
    # otherwise they would stay in the running averages, even if the step is skipped
    before = torch.cat(stats)
    yield
    with torch.no_grad():
        after = torch.cat(stats)
        kept = torch.where(after.isfinite(), after, before).split([len(each) for each in stats])
        torch._foreach_copy_(stats, kept)


class _MeanOverRanksFunction(torch.autograd.Function):
    """Autograd function: the mean of a tensor over ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x / torch.distributed.get_world_size()
        all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # averaged, not summed, because DDP averages the gradients of parameters
        return mean_over_ranks(gradient)


def mean_over_ranks(x: Tensor) -> Tensor:
    """Return the mean of `x` over all ranks, in the shape of `x`.

    Every rank must call it. It can be differentiated any number of times.
    """
    return _MeanOverRanksFunction.apply(x)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm with statistics over the batches of all ranks, for CPUs.

    The batches must have the same size on all ranks.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, C, H, W) per channel; shape and dtype stay the same."""
        if not self.training:
            return super().forward(x)
        x32 = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = mean_over_ranks(x32.mean((0, 2, 3)))
        centred = x32 - mean.view(-1, 1, 1)
        variance = mean_over_ranks(centred.square().mean((0, 2, 3)))
        count = torch.distributed.get_world_size() * x.numel() // x.shape[1]
        self._update_running_stats(mean, variance * (count / max(count - 1, 1)))
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1)).to(x.dtype)

    @torch.no_grad()
    def _update_running_stats(self, mean: Tensor, variance: Tensor) -> None:
        assert self.momentum is not None
        for buffer, value in ((self.running_mean, mean), (self.running_var, variance)):
            assert buffer is not None
            buffer.lerp_(value.to(buffer.dtype), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def convert_sync_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Make the BatchNorm layers of a network compute statistics over all processes.

    Return the converted network, with the same parameter and buffer names.
    """
    if not (torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1):
        return module
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for child in module.modules():
        # torch's own SyncBatchNorm does not run on CPUs
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SyncBatchNorm2d  # same parameters and buffers, other forward()
    return module


def mixes_images(module: nn.Module) -> bool:
    """Return whether an image's output may depend on other images of the batch."""
    return any(isinstance(child, _BatchNorm | MinibatchStddev) for child in module.modules())
