"""The U-Net of pre-activation residual blocks that judges which colours are likely, and mixes them: ours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shards.color import lab_to_rgb, rgb_to_lab

SPACING = 10.0  # ab units between colours, as Zhang et al. 2016, section 2.1
_LARGEST = 110  # of |a| and |b| on the grid
_GROUP = 8  # channels that share a norm


@lru_cache(maxsize=1)
def colours_in_gamut() -> np.ndarray:
    """Points of the ab grid that some L in 0 ... 100 shows in sRGB: float32 (Q, 2), in CIELAB units.

    A colour counts if clipping to sRGB moves it by less than half the spacing.
    """
    line = np.arange(-_LARGEST, _LARGEST + 1, SPACING, dtype=np.float32)
    L, a, b = np.meshgrid(np.arange(0, 101, 5, dtype=np.float32), line, line, indexing="ij")
    lab = np.stack([L, a, b]).reshape(3, len(L), -1)
    back = rgb_to_lab(lab_to_rgb(lab))
    seen = (np.abs(back[1:] - lab[1:]).max(0) < SPACING / 2).any(0)
    return lab[1:, 0, seen].T.copy()


@dataclass(frozen=True, kw_only=True)
class ResidualUNetConfig:
    """L (B, 1, H, W) in [-1, 1] to ab (B, 2, H, W) in units of 110: `levels` halvings, and back, sums for skips.

    At every pixel the network weighs the grid's colours (logits over Q of them); ab is their mean under the softmax at
    `temperature` (Zhang et al. 2016, equation 5: 1 is the mean, towards 0 the likeliest). In training mode `logits`
    holds the last pass's, for `ColourBins`. Half the time goes into the last convolution's 3 x 3, and it is worth it.
    """

    base_channels: int = 64
    levels: int = 3
    widest: int = 8  # times base_channels, at most
    blocks: int = 1  # residual blocks at each size, on the way down and on the way up
    temperature: float = 0.4

    def __post_init__(self) -> None:
        if min(self.base_channels, self.levels, self.widest, self.blocks) < 1:
            raise ValueError("base_channels, levels, widest and blocks must be at least 1")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")

    @property
    def outputs(self) -> int:
        """Channels of what it makes."""
        return 2

    def check_size(self, size: int) -> None:
        """Raise `ValueError` if a picture of `size` pixels cannot pass."""
        if size % 2**self.levels:
            raise ValueError(
                f"{self.levels} levels need a size divisible by {2**self.levels}, got {size}"
            )

    def channels(self) -> list[int]:
        """Channels at full size and after each halving."""
        return [self.base_channels * min(2**level, self.widest) for level in range(self.levels + 1)]

    def build(self) -> ResidualUNet:
        """The network, weights drawn from torch's global generator; every block begins as the identity."""
        return ResidualUNet(self)


class ResidualBlock(nn.Module):
    """norm - ReLU - 3x3 - norm - ReLU - 3x3, added to its input (He et al. 2016, "Identity mappings"); begins as 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            group_norm(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            group_norm(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        for begun in self.body[-1].parameters():
            nn.init.zeros_(begun)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def group_norm(channels: int) -> nn.GroupNorm:
    """Norms of about eight channels of one picture: no batch is needed, and small ones may be taken."""
    groups = next(
        count for count in range(max(1, channels // _GROUP), 0, -1) if channels % count == 0
    )
    return nn.GroupNorm(groups, channels)


class ResidualUNet(nn.Module):
    """See `ResidualUNetConfig`."""

    colours: Tensor
    logits: Tensor | None = (
        None  # (B, Q, H, W) of the last pass in training mode; no part of the state
    )

    def __init__(self, config: ResidualUNetConfig) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.register_buffer(
            "colours", torch.from_numpy(colours_in_gamut() / 110), persistent=False
        )
        widths = config.channels()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(stack(width, config.blocks) for width in widths)
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(
            nn.Conv2d(wide, deep, 3, stride=2, padding=1) for wide, deep in pairs
        )
        self.up = nn.ModuleList(nn.Conv2d(deep, wide, 1) for wide, deep in reversed(pairs))
        self.decoder = nn.ModuleList(stack(wide, config.blocks) for wide, _ in reversed(pairs))
        self.norm = group_norm(widths[0])
        self.head = nn.Conv2d(widths[0], len(self.colours), 3, padding=1)
        nn.init.normal_(self.head.weight, 0.0, 0.02)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, L: Tensor) -> Tensor:
        x = self.stem(torch.cat([L, places(L)], dim=1))
        skips = []
        for block, down in zip(self.encoder, self.down, strict=False):
            skips.append(block(x))
            x = down(skips[-1])
        x = self.encoder[-1](x)
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(skips.pop() + F.interpolate(up(x), scale_factor=2.0, mode="nearest"))
        logits = self.head(self.norm(x).relu())
        if self.training:
            self.logits = logits
        likely = (logits / self.temperature).softmax(dim=1)
        return (self.colours.T.to(likely.dtype) @ likely.flatten(2)).unflatten(2, L.shape[2:])


def stack(channels: int, blocks: int) -> nn.Sequential:
    """Residual blocks one after the other."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))


def places(L: Tensor) -> Tensor:
    """Row and column of each pixel in [-1, 1], (B, 2, H, W): skies are above (Liu et al. 2018, CoordConv)."""
    batch, _, height, width = L.shape
    rows = torch.linspace(-1, 1, height, device=L.device, dtype=L.dtype).view(1, 1, height, 1)
    columns = torch.linspace(-1, 1, width, device=L.device, dtype=L.dtype).view(1, 1, 1, width)
    return torch.cat(
        [rows.expand(batch, 1, height, width), columns.expand(batch, 1, height, width)], dim=1
    )
