"""Kernels of synchronised BatchNorm, which torch has only for GPUs.

The formulas are those of `torch.nn.SyncBatchNorm`'s CUDA kernels: statistics over all
dimensions but the second, in float32, and combined over processes by their counts.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

_registered: list[torch.library.Library] = []  # registrations end when it is deleted


def install() -> None:
    """Register the kernels for the CPU, whose kernels the stand-in uses."""
    library = torch.library.Library("aten", "IMPL", "CPU")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a kernel that is replaced
        library.impl("batch_norm_stats", batch_norm_stats)
        library.impl("batch_norm_gather_stats_with_counts", gather_stats)
        library.impl("batch_norm_elemt", normalise)
        library.impl("batch_norm_backward_reduce", backward_reduce)
        library.impl("batch_norm_backward_elemt", backward_input)
    _registered.append(library)


def _others(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.dim() - 2))


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def batch_norm_stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the mean and the inverse standard deviation of each channel."""
    wide = _wide(x)
    return wide.mean(_others(x)), (wide.var(_others(x), correction=0) + eps).rsqrt()


def gather_stats(
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    """Combine the statistics of all processes, (processes, channels) each."""
    counts = counts.view(-1, 1).to(mean.dtype)
    total = counts.sum()
    joint_mean = (mean * counts).sum(0) / total
    variances = 1 / invstd.square() - eps + (mean - joint_mean).square()
    joint_var = (variances * counts).sum(0) / total
    if running_mean is not None:
        running_mean.lerp_(joint_mean.to(running_mean.dtype), momentum)
    if running_var is not None:
        unbiased = joint_var * total / (total - 1)
        running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    return joint_mean, (joint_var + eps).rsqrt()


def normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor, mean: Tensor, invstd: Tensor, eps: float
) -> Tensor:
    """Return the normalised input, scaled and shifted."""
    y = (x.to(mean.dtype) - _per_channel(mean, x)) * _per_channel(invstd, x)
    if weight is not None:
        y = y * _per_channel(weight, x) + _per_channel(bias, x)
    return y.to(x.dtype)


def backward_reduce(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor | None,
    input_grad: bool,
    weight_grad: bool,
    bias_grad: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return the sums over this process's batch that the gradients need."""
    wide = grad.to(mean.dtype)
    total = wide.sum(_others(x))
    dot = (wide * (x.to(mean.dtype) - _per_channel(mean, x))).sum(_others(x))
    return total, dot, dot * invstd if weight_grad else None, total if bias_grad else None


def backward_input(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor | None,
    total: Tensor,
    dot: Tensor,
    counts: Tensor,
) -> Tensor:
    """Return the input's gradient; `total` and `dot` are sums over all processes."""
    count = counts.sum().to(mean.dtype)
    centred = x.to(mean.dtype) - _per_channel(mean, x)
    along = centred * _per_channel(invstd.square() * dot / count, x)
    wide = grad.to(mean.dtype) - _per_channel(total / count, x) - along
    scale = invstd if weight is None else invstd * weight
    return (wide * _per_channel(scale, x)).to(x.dtype)
