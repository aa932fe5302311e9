"""Codecs that scale Lab for networks, and a differentiable conversion of Lab to RGB.

Names: `stored` is a batch as stored in shards, `lab` is in CIELAB units, and `L` and
`colour` are scaled for networks. `colour` is what the generator predicts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

_FROM_XYZ = torch.tensor(  # inverse of the sRGB matrix (IEC 61966-2-1), as in scikit-image
    [
        [3.240481342832, -1.537151516271, -0.498536326168],
        [-0.969254949996, 1.875990001490, 0.041555926558],
        [0.055646639135, -0.204041338367, 1.057311069645],
    ],
    dtype=torch.float64,
)
_WHITE = torch.tensor([0.95047, 1.0, 1.08883], dtype=torch.float64)  # D65


def stored_to_lab(stored: Tensor) -> Tensor:
    """Convert samples as stored in shards to float32 in CIELAB units, (B, 3, H, W).

    stored: (B, 3, H, W), uint8 (L x 2.55, a + 128, b + 128) or float16 (CIELAB units).
    """
    lab = stored.float()
    if stored.dtype != torch.uint8:
        return lab
    # scalars instead of constant tensors: copying one to the GPU would synchronise
    return torch.cat([lab[:, :1] / 2.55, lab[:, 1:] - 128], dim=1)


@lru_cache(maxsize=8)
def _rgb_of_white_xyz(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the (3, 3) matrix that converts XYZ relative to white to linear RGB."""
    # cached, because copying it to the GPU in every call would make the CPU wait for
    # the GPU
    return (_FROM_XYZ * _WHITE).to(device, dtype)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Convert CIELAB images (B, 3, H, W) to sRGB (B, 3, H, W) in [0, 1].

    Colours outside sRGB are clipped. The function is differentiable.
    """
    # Gradients are finite even at black and at clipped colours. The result equals
    # `skimage.color.lab2rgb`.
    L, a, b = lab.unbind(-3)
    y = (L + 16) / 116
    f = torch.stack([y + a / 500, y, (y - b / 200).clamp(min=0)], dim=-3)
    xyz = torch.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787)
    matrix = _rgb_of_white_xyz(lab.device, lab.dtype)
    linear = torch.einsum("ij,...jhw->...ihw", matrix, xyz).clamp(0, 1)
    curved = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curved, 12.92 * linear).clamp(0, 1)


@dataclass(frozen=True)
class Batch:
    """A training batch on the device, scaled for the networks."""

    L: Tensor  # (B, 1, H, W)
    colour: Tensor  # (B, 2 or 3, H, W), which the generator should predict
    mix: Tensor  # (B, 1, 1, 1), random numbers in [0, 1) for gradient penalties


@dataclass(frozen=True)
class SymmetricCodec:
    """Scales L to L / 50 - 1 and ab to ab / 110, both about [-1, 1].

    Source: Nampouri et al., section 4.1, equations 4-6.
    """

    channels: ClassVar[int] = 2  # number of channels of `colour`

    def encode(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """Return L (B, 1, H, W) in [-1, 1] and ab (B, 2, H, W) in about [-1, 1].

        lab: (B, 3, H, W) in CIELAB units.
        """
        return lab[:, :1] / 50 - 1, lab[:, 1:] / 110

    def decode(self, L: Tensor, colour: Tensor) -> Tensor:
        """Return Lab in CIELAB units (B, 3, H, W), with L clipped to [0, 100].

        L: (B, 1, H, W) and colour: (B, 2, H, W), from `encode`.
        """
        return torch.cat([self.decode_lightness(L, colour), self.decode_ab(colour)], dim=1)

    def decode_lightness(self, L: Tensor, colour: Tensor) -> Tensor:
        """Return the first channel of `decode`, (B, 1, H, W)."""
        return ((L + 1) * 50).clamp(0, 100)

    def decode_ab(self, colour: Tensor) -> Tensor:
        """Return the last two channels of `decode`, (B, 2, H, W)."""
        return colour * 110


@dataclass(frozen=True)
class LabCodec:
    """Scales like `SymmetricCodec`; the generator predicts L as well as a and b.

    Source: Nazeri et al., section 3.1; the paper gives no scaling, this is that of the
    authors' code.
    """

    channels: ClassVar[int] = 3

    def encode(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """Return L (B, 1, H, W) and Lab (B, 3, H, W), both scaled to about [-1, 1].

        lab: (B, 3, H, W) in CIELAB units.
        """
        L, ab = SymmetricCodec().encode(lab)
        return L, torch.cat([L, ab], dim=1)

    def decode(self, L: Tensor, colour: Tensor) -> Tensor:
        """Return Lab in CIELAB units (B, 3, H, W), with L clipped to [0, 100].

        colour: (B, 3, H, W), from `encode`. It contains L, so the argument `L` is not
        used.
        """
        return SymmetricCodec().decode(colour[:, :1], colour[:, 1:])

    def decode_lightness(self, L: Tensor, colour: Tensor) -> Tensor:
        """Return the first channel of `decode`, (B, 1, H, W)."""
        return SymmetricCodec().decode_lightness(colour[:, :1], colour)

    def decode_ab(self, colour: Tensor) -> Tensor:
        """Return the last two channels of `decode`, (B, 2, H, W)."""
        return SymmetricCodec().decode_ab(colour[:, 1:])


@dataclass(frozen=True)
class UnitCodec:
    """Scales L to L / 100 and ab to (ab + 128) / 255, all in [0, 1].

    Source: Arun, section II-B, where the conversion to tensors "inherently normalized"
    the arrays to [0, 1]. This is read as a division of 8-bit values by 255.
    """

    channels: ClassVar[int] = 2

    def encode(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """Return L (B, 1, H, W) and ab (B, 2, H, W), both in [0, 1].

        lab: (B, 3, H, W) in CIELAB units.
        """
        return lab[:, :1] / 100, (lab[:, 1:] + 128) / 255

    def decode(self, L: Tensor, colour: Tensor) -> Tensor:
        """Return Lab in CIELAB units (B, 3, H, W), with L clipped to [0, 100].

        L: (B, 1, H, W) and colour: (B, 2, H, W), from `encode`.
        """
        return torch.cat([self.decode_lightness(L, colour), self.decode_ab(colour)], dim=1)

    def decode_lightness(self, L: Tensor, colour: Tensor) -> Tensor:
        """Return the first channel of `decode`, (B, 1, H, W)."""
        return (L * 100).clamp(0, 100)

    def decode_ab(self, colour: Tensor) -> Tensor:
        """Return the last two channels of `decode`, (B, 2, H, W)."""
        # The paper decodes ab as (x - 0.5) x 256 (equation 1). This exceeds the exact
        # inverse, which is used here, by x = (ab + 128) / 255: by 0 at ab = -128, 0.502
        # at 0 (so that gray gets a slight tint) and 1.0 at 127.
        return colour * 255 - 128


Codec = SymmetricCodec | LabCodec | UnitCodec

_CHUNK_PIXELS = 1 << 16  # converted at a time, so that they stay in the CPU's cache


def encode_stored(
    codec: Codec, stored: Tensor, allocate: Callable[..., Tensor] = torch.empty
) -> tuple[Tensor, Tensor]:
    """Return L and colour for a network from samples as stored in shards.

    stored: (B, 3, H, W) uint8 or float16. L is (B, 1, H, W) and colour (B, C, H, W),
    both float32. `allocate(*shape)` must return a float32 tensor, to which the result
    is written.
    """
    # Equals the following line up to float32 rounding, but a batch takes 8 ms instead
    # of 40 ms on a CPU: a few images at a time pass through all operations while they
    # are in the cache, which is a third of the memory traffic. In numpy, because torch
    # would start a thread pool in every reader thread.
    if stored.dtype != torch.uint8 or stored.device.type != "cpu":
        return codec.encode(stored_to_lab(stored))
    count, _, height, width = stored.shape
    L, colour = allocate(count, 1, height, width), allocate(count, codec.channels, height, width)
    gains, shifts = _gains_and_shifts(codec)
    per_chunk = max(1, _CHUNK_PIXELS // (height * width))
    planes = [
        (0, L.numpy()[:, 0]),
        *((3 - codec.channels + c, colour.numpy()[:, c]) for c in range(codec.channels)),
    ]
    pixels = stored.numpy()
    for start in range(0, count, per_chunk):
        images = slice(start, start + per_chunk)
        for channel, plane in planes:
            out = plane[images]
            np.multiply(
                pixels[images, channel], gains[channel], out=out, dtype=np.float32, casting="unsafe"
            )
            out += shifts[channel]
    return L, colour


@lru_cache(maxsize=8)
def _gains_and_shifts(codec: Codec) -> tuple[np.ndarray, np.ndarray]:
    """Return (3,) arrays such that a network's input is gain * stored + shift."""
    # one value each for L, a and b; the codec is linear, so two points determine them
    zero, one = (torch.full((1, 3, 1, 1), value, dtype=torch.float64) for value in (0, 1))
    encoded = [
        torch.cat([L, colour[:, -2:]], dim=1).flatten()
        for L, colour in (codec.encode(zero), codec.encode(one))
    ]
    gains = (encoded[1] - encoded[0]) / torch.tensor([2.55, 1, 1], dtype=torch.float64)
    shifts = encoded[0] - gains * torch.tensor([0.0, 128, 128], dtype=torch.float64)
    return gains.float().numpy(), shifts.float().numpy()
