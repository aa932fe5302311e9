"""A U-Net of residual blocks that predicts how likely each colour is at each pixel.

This project designed the architecture; it is in no paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from colortrain.models.map_images import map_images
from colortrain.models.unet_config import UNetConfigBase
from shards.color import lab_to_rgb, rgb_to_lab

SPACING = 10.0  # distance of grid colours in ab units (Zhang et al. 2016, section 2.1)
_LARGEST = 110  # largest |a| and |b| on the grid
_GROUP = 8  # channels per normalisation group


@lru_cache(maxsize=1)
def colours_in_gamut() -> np.ndarray:
    """Return the points of a grid in the ab plane that are in the sRGB gamut.

    The result is float32 (Q, 2): (a, b) in CIELAB units, `SPACING` apart.
    """
    axis = np.arange(-_LARGEST, _LARGEST + 1, SPACING, dtype=np.float32)
    L, a, b = np.meshgrid(np.arange(0, 101, 5, dtype=np.float32), axis, axis, indexing="ij")
    lab = np.stack([L, a, b]).reshape(3, len(L), -1)
    round_trip = rgb_to_lab(lab_to_rgb(lab))
    # for some L, clipping to sRGB changes a and b by less than half the spacing
    in_gamut = (np.abs(round_trip[1:] - lab[1:]).max(0) < SPACING / 2).any(0)
    return lab[1:, 0, in_gamut].T.copy()


@dataclass(frozen=True, kw_only=True)
class ResidualUNetConfig(UNetConfigBase):
    """A U-Net over a grid of colours: L (B, 1, H, W) in [-1, 1] to ab (B, 2, H, W).

    At every pixel the network predicts logits over the Q colours of the grid. The
    output, ab / 110, is the mean of these colours, weighted by the softmax of logits /
    `temperature` (Zhang et al. 2016, equation 5).
    """

    levels: int = 3
    widest: int = 8  # largest number of channels, as a multiple of base_channels
    blocks: int = 1  # residual blocks at each resolution, in the encoder and in the decoder
    # 1 gives the expected colour; towards 0 it becomes the most likely one
    temperature: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(1, "widest", "blocks")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")

    def channels(self) -> list[int]:
        """Return the numbers of channels: at full size, then after each halving."""
        return self.doubling_channels(self.levels + 1, largest=self.widest)

    def build(self) -> ResidualUNet:
        """Return a new network; torch's global random generator draws its weights."""
        return ResidualUNet(self)


class ResidualBlock(nn.Module):
    """Adds norm - ReLU - 3x3 conv - norm - ReLU - 3x3 conv to its input.

    (He et al. 2016, "Identity Mappings in Deep Residual Networks".)
    """

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
        for parameter in self.body[-1].parameters():  # the block starts as the identity
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, C, H, W) to a tensor of the same shape."""
        return x + self.body(x)


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a GroupNorm with about eight channels per group."""
    groups = next(
        count for count in range(max(1, channels // _GROUP), 0, -1) if channels % count == 0
    )
    # GroupNorm does not mix the images of a batch, so the batch may be small
    return nn.GroupNorm(groups, channels)


class ResidualUNet(nn.Module):
    """The generator that `ResidualUNetConfig` describes."""

    colours: Tensor
    logits: Tensor | None = None  # (B, Q, H, W), see `take_logits`
    recompute_logits = False  # whether functions of the logits save memory, see `map_images`

    def __init__(self, config: ResidualUNetConfig) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.register_buffer(
            "colours", torch.from_numpy(colours_in_gamut() / 110), persistent=False
        )
        widths = config.channels()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(residual_blocks(width, config.blocks) for width in widths)
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(
            nn.Conv2d(wide, deep, 3, stride=2, padding=1) for wide, deep in pairs
        )
        self.up = nn.ModuleList(nn.Conv2d(deep, wide, 1) for wide, deep in reversed(pairs))
        self.decoder = nn.ModuleList(
            residual_blocks(wide, config.blocks) for wide, _ in reversed(pairs)
        )
        self.norm = group_norm(widths[0])
        # takes half of the computing time, but improves the quality enough to justify
        # that
        self.head = nn.Conv2d(widths[0], len(self.colours), 3, padding=1)
        nn.init.normal_(self.head.weight, 0.0, 0.02)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, L: Tensor) -> Tensor:
        """Map L (B, 1, H, W) in [-1, 1] to ab / 110 (B, 2, H, W)."""
        # the network can use the position, for instance that skies are at the top
        x = self.stem(torch.cat([L, coordinate_channels(L)], dim=1))
        skips = []
        for block, down in zip(self.encoder, self.down, strict=False):
            skips.append(block(x))
            x = down(skips[-1])
        x = self.encoder[-1](x)
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(skips.pop() + F.interpolate(up(x), scale_factor=2.0, mode="nearest"))
        logits = self.head(self.norm(x).relu())
        if self.training and torch.is_grad_enabled():
            self.logits = logits
        return map_images(self._mean_colour, logits, recompute=self.recompute_logits)

    def _mean_colour(self, logits: Tensor) -> Tensor:
        likely = (logits / self.temperature).softmax(dim=1)
        colour = self.colours.T.to(likely.dtype) @ likely.flatten(2)
        return colour.unflatten(2, logits.shape[2:])

    def take_logits(self) -> Tensor:
        """Return the logits (B, Q, H, W) of the last forward pass that has gradients.

        They can be taken once: kept, they would occupy memory until the next such pass.
        Raises RuntimeError if there are none.
        """
        if self.logits is None:
            raise RuntimeError("the logits of this forward pass have been taken already")
        logits, self.logits = self.logits, None
        return logits


def residual_blocks(channels: int, blocks: int) -> nn.Sequential:
    """Return `blocks` residual blocks in sequence."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))


def coordinate_channels(L: Tensor) -> Tensor:
    """Return the row and column of each pixel, scaled to [-1, 1]: (B, 2, H, W).

    L: (B, 1, H, W). The method is CoordConv (Liu et al. 2018).
    """
    batch, _, height, width = L.shape
    rows = torch.linspace(-1, 1, height, device=L.device, dtype=L.dtype).view(1, 1, height, 1)
    columns = torch.linspace(-1, 1, width, device=L.device, dtype=L.dtype).view(1, 1, 1, width)
    return torch.cat(
        [rows.expand(batch, 1, height, width), columns.expand(batch, 1, height, width)], dim=1
    )
