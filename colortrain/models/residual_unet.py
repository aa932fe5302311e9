"""The U-Net of pre-activation residual blocks that judges which colours are likely, and mixes them: ours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shards.lab import lab_to_rgb, rgb_to_lab

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
    `temperature` (Zhang et al. 2016, equation 5: 1 is the mean, towards 0 the likeliest), and where `corrects` a
    correction without bounds, which `ColourBins` alone does not teach. In training mode `logits` holds the last
    pass's, for `ColourBins`.
    """

    base_channels: int = 64
    levels: int = 3
    widest: int = 8  # times base_channels, at most
    blocks: int = 1  # residual blocks at each size, on the way down and on the way up
    deep_blocks: int = 1  # at each of the two smallest sizes on the way down, where a pixel sees most for least
    head: int = 3  # pixels, the side of the last convolution, odd: half of all time goes into 3, and it is worth it
    attention: bool = False  # among the pixels of the smallest map
    temperature: float = 0.4
    corrects: bool = False

    def __post_init__(self) -> None:
        if min(self.base_channels, self.levels, self.widest, self.blocks, self.deep_blocks) < 1:
            raise ValueError("base_channels, levels, widest, blocks and deep_blocks must be at least 1")
        if self.head % 2 == 0 or self.head < 0:
            raise ValueError(f"head must be odd, got {self.head}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")

    @property
    def outputs(self) -> int:
        """Channels of what it makes."""
        return 2

    def check_size(self, size: int) -> None:
        """Raise `ValueError` if a picture of `size` pixels cannot pass."""
        if size % 2**self.levels:
            raise ValueError(f"{self.levels} levels need a size divisible by {2**self.levels}, got {size}")

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
            group_norm(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1),
            group_norm(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip
        zero(self.body[-1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Attention(nn.Module):
    """Every pixel looks at every other, one head for 32 channels, added to the input; begins as 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = math.gcd(channels, max(1, channels // 32))
        self.norm, self.qkv = group_norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        heads = self.qkv(self.norm(x)).view(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = heads.transpose(-1, -2).unbind(1)
        seen = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(seen.transpose(-1, -2).reshape(batch, channels, height, width))


def zero(*modules: nn.Module) -> None:
    """Start layers as nothing."""
    for module in modules:
        for parameter in module.parameters():
            nn.init.zeros_(parameter)


def group_norm(channels: int) -> nn.GroupNorm:
    """Norms of about eight channels of one picture: no batch is needed, and small ones may be taken."""
    groups = next(count for count in range(max(1, channels // _GROUP), 0, -1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)


class ResidualUNet(nn.Module):
    """See `ResidualUNetConfig`."""

    colours: Tensor
    logits: Tensor | None = None  # (B, Q, H, W) of the last pass in training mode; no part of the state

    def __init__(self, config: ResidualUNetConfig) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.register_buffer("colours", torch.from_numpy(colours_in_gamut() / 110), persistent=False)
        widths = config.channels()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        blocks = [config.blocks] * (len(widths) - 2) + [config.deep_blocks] * 2
        self.encoder = nn.ModuleList(stack(width, count) for width, count in zip(widths, blocks, strict=True))
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(wide, deep, 3, stride=2, padding=1) for wide, deep in pairs)
        self.middle = Attention(widths[-1]) if config.attention else nn.Identity()
        self.up = nn.ModuleList(nn.Conv2d(deep, wide, 1) for wide, deep in reversed(pairs))
        self.decoder = nn.ModuleList(stack(wide, config.blocks) for wide, _ in reversed(pairs))
        self.norm = group_norm(widths[0])
        side = config.head
        self.head = nn.Conv2d(widths[0], len(self.colours), side, padding=side // 2)
        self.correction = nn.Conv2d(widths[0], 2, side, padding=side // 2) if config.corrects else None
        zero(*(layer for layer in (self.head, self.correction) if layer))
        nn.init.normal_(self.head.weight, 0.0, 0.02)

    def forward(self, L: Tensor) -> Tensor:
        x = self.stem(torch.cat([L, places(L)], dim=1))
        skips = []
        for block, down in zip(self.encoder, self.down, strict=False):
            skips.append(block(x))
            x = down(skips[-1])
        x = self.middle(self.encoder[-1](x))
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(skips.pop() + F.interpolate(up(x), scale_factor=2.0, mode="nearest"))
        seen = self.norm(x).relu()
        logits = self.head(seen)
        if self.training:
            self.logits = logits
        likely = (logits / self.temperature).softmax(dim=1)
        mean = (self.colours.T.to(likely.dtype) @ likely.flatten(2)).unflatten(2, L.shape[2:])
        return mean if self.correction is None else mean + self.correction(seen)


def stack(channels: int, blocks: int) -> nn.Sequential:
    """Residual blocks one after the other."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))


def places(L: Tensor) -> Tensor:
    """Row and column of each pixel in [-1, 1], (B, 2, H, W): skies are above (Liu et al. 2018, CoordConv)."""
    batch, _, height, width = L.shape
    rows = torch.linspace(-1, 1, height, device=L.device, dtype=L.dtype).view(1, 1, height, 1)
    columns = torch.linspace(-1, 1, width, device=L.device, dtype=L.dtype).view(1, 1, 1, width)
    return torch.cat([rows.expand(batch, 1, height, width), columns.expand(batch, 1, height, width)], dim=1)
