"""Layers whose result does not depend on how a global batch is shared among processes and microbatches.

Dropout draws by each picture's place in the global batch, BatchNorm takes its statistics over all processes.
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


def _scrambled(x: Tensor) -> Tensor:
    """A hash of int32 (Wellons' lowbias32): flipping one bit of `x` flips every bit of the result half the time."""
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * (0x846CA68B - 2**32)
    return x ^ ((x >> 16) & 0xFFFF)


def image_keys(seed: int, step: int, first: int, count: int, device: torch.device) -> Tensor:
    """int32 (count,): what pictures `first` and on of step `step`'s global batch draw from."""
    digest = hashlib.blake2b(f"{seed}/{step}/pictures".encode(), digest_size=4).digest()
    places = torch.arange(first, first + count, dtype=torch.int32, device=device)
    return _scrambled(places * _GOLDEN + int.from_bytes(digest, "big", signed=True))


class KeyedDropout(nn.Dropout):
    """Dropout whose draws are a function of a picture's key, the layer and the place in the map: counter-based.

    Without keys (outside a training step) it draws from torch's generator, as the layer that it replaces.
    """

    keys: Tensor | None = None  # not a buffer: it is no part of the network's state

    def __init__(self, p: float, layer: int, whole_channels: bool) -> None:
        super().__init__(p)
        self.layer, self.whole_channels = layer, whole_channels

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if self.keys is None:
            return F.dropout2d(x, self.p) if self.whole_channels else F.dropout(x, self.p)
        shape = [*x.shape[:2], *(1 for _ in x.shape[2:])] if self.whole_channels else list(x.shape)
        keep = self.draws(self.keys, shape) >= round(self.p * 2**32) - 2**31
        return torch.where(keep, x / (1 - self.p), 0)

    def draws(self, keys: Tensor, shape: list[int]) -> Tensor:
        """Uniform int32 of `shape`, whose first dimension is the pictures'."""
        count = torch.Size(shape[1:]).numel()
        mine = _scrambled(keys + self.layer).view(-1, 1)
        counters = torch.arange(count, dtype=torch.int32, device=keys.device) * _GOLDEN
        return _scrambled(_scrambled(counters ^ mine) + mine).view(shape)


def replace_dropout(module: nn.Module) -> nn.Module:
    """Put a `KeyedDropout` in the place of every dropout inside `module`."""
    found = [
        (parent, name)
        for parent in module.modules()
        for name, child in parent.named_children()
        if _drops(child)
    ]
    for layer, (parent, name) in enumerate(found):
        old = getattr(parent, name)
        setattr(
            parent,
            name,
            KeyedDropout(old.p, layer, isinstance(old, nn.Dropout2d)).train(old.training),
        )
    return module


def _drops(module: nn.Module) -> bool:
    return isinstance(module, _DropoutNd)


@contextmanager
def dropout_keys(module: nn.Module, keys: Tensor) -> Iterator[None]:
    """Inside the block, forward passes of `module` drop what `keys` (B,) say."""
    layers = [layer for layer in module.modules() if isinstance(layer, KeyedDropout)]
    for layer in layers:
        layer.keys = keys
    try:
        yield
    finally:
        for layer in layers:
            layer.keys = None


@contextmanager
def frozen_bn_stats(module: nn.Module) -> Iterator[None]:
    """Inside the block, BatchNorms of `module` normalise as ever but leave their running statistics as they are.

    Autograd must keep what it keeps otherwise, or a block could not be computed again: so momentum 0 it is.
    """
    norms = [child for child in module.modules() if isinstance(child, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = (
            None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
        )
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


@contextmanager
def restore_finite_bn_stats(*modules: nn.Module) -> Iterator[None]:
    """After the block, BatchNorms' running statistics that hold no number any more are again what they were before it.

    An update that is left out would else spoil them for good: they never forget an infinity.
    """
    norms = [
        child for module in modules for child in module.modules() if isinstance(child, _BatchNorm)
    ]
    statistics = [
        each for norm in norms for each in (norm.running_mean, norm.running_var) if each is not None
    ]
    if not statistics:
        yield
        return
    before = torch.cat(statistics)
    yield
    with torch.no_grad():
        now = torch.cat(statistics)
        kept = torch.where(now.isfinite(), now, before).split([len(each) for each in statistics])
        torch._foreach_copy_(statistics, kept)


class _MeanOverRanks(torch.autograd.Function):
    """The mean of equal shares; its gradient is the mean too, since DDP divides by the number of ranks later."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x / torch.distributed.get_world_size()
        all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return mean_over_ranks(gradient)


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of every rank's `x`, differentiable any number of times; all ranks call it."""
    return _MeanOverRanks.apply(x)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the equal shares of all ranks, for CPUs, where torch's own SyncBatchNorm does not run."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = mean_over_ranks(wide.mean((0, 2, 3)))
        centred = wide - mean.view(-1, 1, 1)
        variance = mean_over_ranks(centred.square().mean((0, 2, 3)))
        count = torch.distributed.get_world_size() * x.numel() // x.shape[1]
        self._remember(mean, variance * (count / max(count - 1, 1)))
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1)).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.momentum is not None
        for buffer, now in ((self.running_mean, mean), (self.running_var, variance)):
            assert buffer is not None
            buffer.lerp_(now.to(buffer.dtype), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def convert_sync_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """`module` with its BatchNorms counting over all processes: the same parameters and buffers by the same names."""
    if not (torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1):
        return module
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SyncBatchNorm2d  # the same state, another forward pass
    return module


def mixes_images(module: nn.Module) -> bool:
    """Whether what `module` makes of a picture depends on the others in its batch."""
    return any(isinstance(child, _BatchNorm | MinibatchStddev) for child in module.modules())
