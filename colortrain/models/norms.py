"""Normalization layers by name, and the two of ProGAN (Karras et al. 2018, sections 3 and 4.2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["batch", "instance", "pixel", "none"]


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """BatchNorm (affine), InstanceNorm (not affine), PixelNorm or nothing, for (B, channels, H, W)."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "pixel":
        return PixelNorm()
    return nn.InstanceNorm2d(channels) if kind == "instance" else nn.Identity()


def needs_bias(kind: Norm) -> bool:
    """Whether a convolution before this norm has use for a bias: not where the norm takes the mean away."""
    return kind in ("pixel", "none")


class PixelNorm(nn.Module):
    """Divides each pixel's channels by their root mean square (drouilhet equation 5), without parameters.

    In float32 at least: in bfloat16 the squares keep 8 bits, in float16 1e-8 would be nothing.
    """

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = _widened(x)
        return (wide * torch.rsqrt(wide.square().mean(dim=1, keepdim=True) + self.eps)).to(x.dtype)


class MinibatchStddev(nn.Module):
    """Appends one channel that holds the batch's mean standard deviation: (B, C, H, W) to (B, C + 1, H, W).

    Drouilhet section 9.2, steps 1-4. The batch is the one this process holds: under data parallelism each rank sees
    its own share (as in ProGAN's code, which groups by device), so the figure depends on batch_size / processes.
    Equal pictures give exactly 0. Scores of one picture follow the others: beside a gradient penalty it blurs whose
    gradient is penalised.
    """

    def forward(self, x: Tensor) -> Tensor:
        variance = _widened(x).var(dim=0, correction=0)
        spread = torch.where(
            variance > 0, variance, 1
        ).sqrt()  # the root has no slope at 0: keep it out of the graph
        mean = torch.where(variance > 0, spread, 0).mean()
        return torch.cat([x, mean.to(x.dtype).expand(len(x), 1, *x.shape[2:])], dim=1)


def _widened(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
