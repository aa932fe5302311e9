"""Between stored samples and what networks see: scalings of Lab (codecs), and a differentiable Lab to RGB.

Names: `stored` is a batch as packed in shards, `lab` is CIELAB units, `L` and `colour` are network-scaled. A codec's
`colour` is what the generator makes: ab, or all of Lab.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

_FROM_XYZ = torch.tensor(  # inverse of the sRGB matrix (IEC 61966-2-1), as scikit-image
    [
        [3.240481342832, -1.537151516271, -0.498536326168],
        [-0.969254949996, 1.875990001490, 0.041555926558],
        [0.055646639135, -0.204041338367, 1.057311069645],
    ],
    dtype=torch.float64,
)
_WHITE = torch.tensor([0.95047, 1.0, 1.08883], dtype=torch.float64)  # D65


def stored_to_lab(stored: Tensor) -> Tensor:
    """CIELAB units of stored samples: (B, 3, H, W) uint8 or float16 to float32."""
    lab = stored.float()
    if stored.dtype != torch.uint8:
        return lab
    return torch.cat(
        [lab[:, :1] / 2.55, lab[:, 1:] - 128], dim=1
    )  # no constants to copy: a copy waits for the GPU


@lru_cache(maxsize=8)
def _rgb_of_white_xyz(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The matrix from XYZ over white to linear RGB, copied to a device once: a copy waits for the GPU."""
    return (_FROM_XYZ * _WHITE).to(device, dtype)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """sRGB in [0, 1] of CIELAB units, (B, 3, H, W) to the same shape; colours outside sRGB are clipped.

    Differentiable, with finite gradients at black and at clipped colours; equals `skimage.color.lab2rgb`.
    """
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
    """Network-scaled training pictures on the device.

    L: (B, 1, H, W); colour: (B, 2 or 3, H, W), what the generator should make of L; mix: (B, 1, 1, 1) uniform draws
    in [0, 1) that follow each picture's place in the global order (for gradient penalties).
    """

    L: Tensor
    colour: Tensor
    mix: Tensor


@dataclass(frozen=True)
class SymmetricCodec:
    """L / 50 - 1 and ab / 110: everything about [-1, 1] (nampouri section 4.1, equations 4-6)."""

    channels: ClassVar[int] = 2  # of colour

    def encode(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) CIELAB units to L (B, 1, H, W) in [-1, 1] and ab (B, 2, H, W) in about [-1, 1]."""
        return lab[:, :1] / 50 - 1, lab[:, 1:] / 110

    def decode(self, L: Tensor, colour: Tensor) -> Tensor:
        """The inverse: L (B, 1, H, W) and ab (B, 2, H, W) to (B, 3, H, W) CIELAB units, L clipped to [0, 100]."""
        return torch.cat([((L + 1) * 50).clamp(0, 100), colour * 110], dim=1)


@dataclass(frozen=True)
class LabCodec:
    """The symmetric scaling, but the generator makes L as well: three channels out (nazeri section 3.1)."""

    channels: ClassVar[int] = 3

    def encode(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) CIELAB units to L (B, 1, H, W) and Lab (B, 3, H, W), all about [-1, 1]."""
        L, ab = SymmetricCodec().encode(lab)
        return L, torch.cat([L, ab], dim=1)

    def decode(self, L: Tensor, colour: Tensor) -> Tensor:
        """CIELAB units of the generator's three channels; the L that went in is not used."""
        return SymmetricCodec().decode(colour[:, :1], colour[:, 1:])


@dataclass(frozen=True)
class UnitCodec:
    """L / 100 and (ab + 128) / 255: everything in [0, 1], uint8 Lab over 255 (arun section II-B).

    The paper decodes ab as (x - .5) x 256 (equation 1), which is off from its own encoding by up to .5; we invert.
    """

    channels: ClassVar[int] = 2

    def encode(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) CIELAB units to L (B, 1, H, W) and ab (B, 2, H, W), both in [0, 1]."""
        return lab[:, :1] / 100, (lab[:, 1:] + 128) / 255

    def decode(self, L: Tensor, colour: Tensor) -> Tensor:
        """The inverse: (B, 3, H, W) CIELAB units, L clipped to [0, 100]."""
        return torch.cat([(L * 100).clamp(0, 100), colour * 255 - 128], dim=1)


Codec = SymmetricCodec | LabCodec | UnitCodec

_IN_CACHE = 1 << 16  # pixels


def encode_stored(
    codec: Codec, stored: Tensor, room: Callable[..., Tensor] = torch.empty
) -> tuple[Tensor, Tensor]:
    """`codec.encode(stored_to_lab(stored))`, on CPUs with a third of the traffic to memory: 8 ms a batch, not 40.

    Equal up to float32 rounding. A few pictures at a time go through all arithmetic while they are in the cache; by
    numpy, for torch would start a team of threads in each thread that reads. `room(*shape)` gives float32 to write to.
    """
    if stored.dtype != torch.uint8 or stored.device.type != "cpu":
        return codec.encode(stored_to_lab(stored))
    count, _, height, width = stored.shape
    L, colour = room(count, 1, height, width), room(count, codec.channels, height, width)
    gains, shifts = _gains_and_shifts(codec)
    few = max(1, _IN_CACHE // (height * width))
    planes = [
        (0, L.numpy()[:, 0]),
        *((3 - codec.channels + c, colour.numpy()[:, c]) for c in range(codec.channels)),
    ]
    pixels = stored.numpy()
    for some in (slice(start, start + few) for start in range(0, count, few)):
        for source, plane in planes:
            out = plane[some]
            np.multiply(
                pixels[some, source], gains[source], out=out, dtype=np.float32, casting="unsafe"
            )
            out += shifts[source]
    return L, colour


@lru_cache(maxsize=8)
def _gains_and_shifts(codec: Codec) -> tuple[np.ndarray, np.ndarray]:
    """A codec's encoding of stored uint8 L, a and b as gain * stored + shift, found by encoding 0 and 1."""
    black, one = (torch.full((1, 3, 1, 1), value, dtype=torch.float64) for value in (0, 1))
    ends = [
        torch.cat([L, colour[:, -2:]], dim=1).flatten()
        for L, colour in (codec.encode(black), codec.encode(one))
    ]
    gains = (ends[1] - ends[0]) / torch.tensor([2.55, 1, 1], dtype=torch.float64)
    shifts = ends[0] - gains * torch.tensor([0.0, 128, 128], dtype=torch.float64)
    return gains.float().numpy(), shifts.float().numpy()
