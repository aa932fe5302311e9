"""A generator: a U-Net of residual blocks (Arun, section II-C, figure 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from colortrain.models.unet_config import UNetConfigBase, check_dropout


@dataclass(frozen=True, kw_only=True)
class ResUNetConfig(UNetConfigBase):
    """A U-Net of residual blocks: L (B, 1, H, W) to ab (B, 2, H, W), unbounded.

    By default there are 8,216,194 parameters (Arun, figure 1).
    """

    levels: int = 3  # encoder blocks above the bridge, each followed by pooling
    dropout: float = 0.2  # of whole channels, after each encoder block and the bridge

    min_bottleneck = 2  # BatchNorm needs more than one pixel per channel at batch size 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dropout(self.dropout)

    def channels(self) -> list[int]:
        """Return the numbers of channels of the encoder blocks and of the bridge."""
        return self.doubling_channels(self.levels + 1)

    def build(self) -> ResUNet:
        """Return a new network; torch's global random generator draws its weights."""
        # Arun does not specify the initialisation, so PyTorch's default is used
        return ResUNet(self)


class ResBlock(nn.Module):
    """3x3 conv - BN - ReLU - 3x3 conv - BN, plus a 1x1 projection, then ReLU.

    (Arun, section II-C, items 1 and 4.)
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        # an "identity shortcut" in the paper, but every block changes the number of
        # channels
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W), with no negative values."""
        return (self.body(x) + self.shortcut(x)).relu()


class ResUNet(nn.Module):
    """The generator that `ResUNetConfig` describes."""

    def __init__(self, config: ResUNetConfig) -> None:
        super().__init__()
        *widths, bridge = config.channels()
        self.encoder = nn.ModuleList(
            nn.Sequential(ResBlock(inputs, width), nn.Dropout2d(config.dropout))
            for inputs, width in zip([1, *widths], widths, strict=False)
        )
        self.bridge = nn.Sequential(ResBlock(widths[-1], bridge), nn.Dropout2d(config.dropout))
        below = [bridge, *widths[::-1]]
        self.decoder = nn.ModuleList(
            ResBlock(inputs + width, width)
            for inputs, width in zip(below, widths[::-1], strict=False)
        )
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, L: Tensor) -> Tensor:
        """Map L (B, 1, H, W) to ab (B, 2, H, W), unbounded."""
        x, skips = L, []
        for block in self.encoder:
            skips.append(block(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.bridge(x)
        for block in self.decoder:
            wide = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([wide, skips.pop()], dim=1))
        return self.head(x)
