"""Normalisation layers by name, and two layers of ProGAN.

The two layers are PixelNorm and the minibatch standard deviation (Karras et al. 2018,
sections 3 and 4.2).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["batch", "instance", "pixel", "none"]


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """Return a normalisation layer for tensors (B, channels, H, W).

    `kind` is "batch" (BatchNorm with parameters), "instance" (InstanceNorm without
    parameters), "pixel" (`PixelNorm`) or "none" (the identity).
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "pixel":
        return PixelNorm()
    return nn.InstanceNorm2d(channels) if kind == "instance" else nn.Identity()


def needs_bias(kind: Norm) -> bool:
    """Return whether a convolution followed by this kind of norm needs a bias."""
    # all other norms subtract the mean, which would remove the bias
    return kind in ("pixel", "none")


class PixelNorm(nn.Module):
    """Divides the channels of each pixel by their root mean square.

    (Drouilhet and L'Herminé, equation 5.)
    """

    # their text says "to unit length"; after equation 5 it is the root of the number of
    # channels, as in ProGAN

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised `x` (B, C, H, W), in the same shape and dtype."""
        # bfloat16 would keep only 8 bits of the squares; in float16, eps would be 0
        x32 = _to_float32(x)
        return (x32 * torch.rsqrt(x32.square().mean(dim=1, keepdim=True) + self.eps)).to(x.dtype)


class MinibatchStddev(nn.Module):
    """Appends one channel: the standard deviation over the images of the batch.

    It is averaged over channels and pixels (Drouilhet and L'Herminé, section 9.2, steps
    1-4). The batch is this process's part of the global batch.
    """

    # not given: division by B (not B - 1), and real and generated images in separate
    # passes

    def forward(self, x: Tensor) -> Tensor:
        """Append one channel, the deviation: (B, C, H, W) to (B, C + 1, H, W)."""
        # ProGAN's code groups by device too: the value depends on batch_size /
        # processes. An image's score depends on the other images, so the gradient that
        # a gradient penalty limits is no longer that of a single image.
        variance = _to_float32(x).var(dim=0, correction=0)
        # sqrt has an infinite gradient at 0, so zeros are kept out of the graph
        std = torch.where(variance > 0, variance, 1).sqrt()
        mean = torch.where(variance > 0, std, 0).mean()
        return torch.cat([x, mean.to(x.dtype).expand(len(x), 1, *x.shape[2:])], dim=1)


def _to_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
