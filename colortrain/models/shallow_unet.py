"""Shallow U-Net generators, with or without extra layers around the bottleneck.

(Valentini and Nagaro Quiroz, sections III and VI.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from colortrain.models.initialise import normal_init
from colortrain.models.pix2pix import Down, Up
from colortrain.models.unet_config import UNetConfigBase, check_dropout


@dataclass(frozen=True, kw_only=True)
class ShallowUNetConfig(UNetConfigBase):
    """A shallow U-Net: L (B, 1, H, W) to ab (B, 2, H, W) in [-1, 1].

    `depth` is the number of halvings. By default there are 12,985,986 parameters; with
    `thick_layers` 3 there are 27,147,906, or 24,717,186 with `thick_at` "levels".
    """

    # 2, 3 and 4 in the paper
    depth: int = 4
    # section VI-A: 0 is the model of Isola et al.; 3 is "a triple layer before and
    # after the bottleneck"
    thick_layers: int = 0
    # "bottleneck": between the deepest encoder and decoder layer, `thick_layers` before
    # the bottleneck's convolutions and as many after them (section VI-A). "levels":
    # `thick_layers` after every encoder and decoder layer but the last: "thicker
    # encoding/decoding layers" (section VI-B).
    thick_at: Literal["bottleneck", "levels"] = "bottleneck"
    # "sequential convolutions" (section III): the shortest possible sequence; their
    # kernels are 3x3, as are those of the thick layers
    bottleneck_layers: int = 2
    dropout: float = 0.0  # in decoder layers; G: x -> y takes no noise (section III)

    depth_field = "depth"
    min_bottleneck = 2  # BatchNorm needs more than one pixel per channel at batch size 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(0, "thick_layers", "bottleneck_layers")
        check_dropout(self.dropout)

    def channels(self) -> list[int]:
        """Return the number of channels after each encoder layer."""
        return self.doubling_channels(self.depth, largest=8)

    def build(self) -> ShallowUNet:
        """Return a new network; torch's global random generator draws its weights."""
        network = ShallowUNet(self)
        normal_init(network)
        return network


class ConvBlock(nn.Module):
    """ReLU, 3x3 convolution of stride 1, BatchNorm: a layer that makes others thick."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, channels, H, W) to a tensor of the same shape."""
        return self.norm(self.conv(x.relu()))


def conv_blocks(channels: int, count: int) -> nn.Sequential:
    """Return `count` blocks in a row; none is the identity."""
    return nn.Sequential(*(ConvBlock(channels) for _ in range(count)))


class ShallowUNet(nn.Module):
    """The generator that `ShallowUNetConfig` describes."""

    def __init__(self, config: ShallowUNetConfig) -> None:
        super().__init__()
        # The paper gives sizes only in figures 2 and 6. Kernels, widths, BatchNorm,
        # activations, tanh and initial weights are those of Isola et al. 2017 (section
        # 6.1.1).
        widths = config.channels()
        self.encoder = nn.ModuleList(
            Down(inputs, width, first=level == 0)
            for level, (inputs, width) in enumerate(zip([1, *widths], widths, strict=False))
        )
        at_levels = config.thick_layers if config.thick_at == "levels" else 0
        at_bottleneck = config.thick_layers - at_levels
        self.bottleneck = conv_blocks(widths[-1], 2 * at_bottleneck + config.bottleneck_layers)
        # each decoder layer receives the encoder layer "at its same depth" (section
        # III), including the deepest
        self.decoder = nn.ModuleList(
            Up(2 * widths[level], widths[level - 1], config.dropout)
            for level in range(config.depth - 1, 0, -1)
        )
        self.head = nn.ConvTranspose2d(2 * widths[0], 2, 4, stride=2, padding=1)
        self.thick_encoder = nn.ModuleList(conv_blocks(width, at_levels) for width in widths)
        self.thick_decoder = nn.ModuleList(conv_blocks(w, at_levels) for w in widths[-2::-1])

    def forward(self, L: Tensor) -> Tensor:
        """Map L (B, 1, H, W) to ab (B, 2, H, W) in [-1, 1]."""
        x, skips = L, []
        for down, thick in zip(self.encoder, self.thick_encoder, strict=True):
            x = thick(down(x))
            skips.append(x)
        x = self.bottleneck(x)
        for up, thick in zip(self.decoder, self.thick_decoder, strict=True):
            x = thick(up(torch.cat([x, skips.pop()], dim=1)))
        return torch.tanh(self.head(torch.cat([x, skips.pop()], dim=1).relu()))
