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

    `kind` says which one: "batch" is an affine BatchNorm, "instance" an InstanceNorm
    without parameters, "pixel" a `PixelNorm`, and "none" the identity.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "pixel":
        return PixelNorm()
    return nn.InstanceNorm2d(channels) if kind == "instance" else nn.Identity()


def needs_bias(kind: Norm) -> bool:
    """Return whether a convolution followed by this kind of norm needs a bias.

    It does not if the norm subtracts the mean, which would remove the bias.
    """
    return kind in ("pixel", "none")


class PixelNorm(nn.Module):
    """Divides the channels of each pixel by their root mean square.

    (Drouilhet and L'Herminé, equation 5.) The layer has no parameters. It computes in
    float32 or higher: bfloat16 would keep only 8 bits of the squares, and in float16
    the epsilon of 1e-8 would be 0.
    """

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised `x` (B, C, H, W), in the same shape and dtype."""
        x32 = _to_float32(x)
        return (x32 * torch.rsqrt(x32.square().mean(dim=1, keepdim=True) + self.eps)).to(x.dtype)


class MinibatchStddev(nn.Module):
    """Appends one channel: the standard deviation over the images of the batch.

    The standard deviation is averaged over channels and pixels (Drouilhet and
    L'Herminé, section 9.2, steps 1-4), so the channel is constant. It covers only this
    process's part of the global batch (as in ProGAN's code, which groups by device), so
    its value depends on batch_size / processes. If all images are equal, it is exactly
    0. With this layer the score of an image depends on the other images, so the
    gradient that a gradient penalty limits is no longer that of a single image.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Append one channel, the deviation: (B, C, H, W) to (B, C + 1, H, W)."""
        variance = _to_float32(x).var(dim=0, correction=0)
        # sqrt has an infinite gradient at 0, so zeros are kept out of the graph
        std = torch.where(variance > 0, variance, 1).sqrt()
        mean = torch.where(variance > 0, std, 0).mean()
        return torch.cat([x, mean.to(x.dtype).expand(len(x), 1, *x.shape[2:])], dim=1)


def _to_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
