"""The ResU-Net generator: residual blocks in a U-Net, bilinear on the way up (arun section II-C, figure 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class ResUNetConfig:
    """L (B, 1, H, W) to ab (B, 2, H, W), not bounded: `levels` residual blocks with poolings between, a bridge, back.

    With 64 base channels and 3 levels: 8,216,194 parameters, a bridge of 512 channels at 28 px for 224 px (figure 1).
    The paper names no starting weights: PyTorch's own.
    """

    base_channels: int = 64
    levels: int = 3  # encoder blocks above the bridge, each followed by a pooling
    dropout: float = 0.2  # of whole channels, after each encoder block and the bridge

    def __post_init__(self) -> None:
        if self.base_channels < 1 or self.levels < 1:
            raise ValueError("base_channels and levels must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def outputs(self) -> int:
        """Channels of what it makes."""
        return 2

    def check_size(self, size: int) -> None:
        """Raise `ValueError` if a picture of `size` pixels cannot pass, or leaves BatchNorm a single pixel."""
        step = 2**self.levels
        if size % step or size < 2 * step:
            raise ValueError(
                f"{self.levels} levels need a size that is {step} times 2 or more, got {size}"
            )

    def channels(self) -> list[int]:
        """Channels of each encoder block and the bridge: 64, 128, 256, 512."""
        return [self.base_channels * 2**level for level in range(self.levels + 1)]

    def build(self) -> ResUNet:
        """The network, weights drawn from torch's global generator."""
        return ResUNet(self)


class ResBlock(nn.Module):
    """3x3 conv - BN - ReLU - 3x3 conv - BN, a 1x1 projection added, then ReLU (section II-C items 1 and 4).

    The text says "identity shortcut", but every block changes the number of channels: hence the projection.
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
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.shortcut(x)).relu()


class ResUNet(nn.Module):
    """See `ResUNetConfig`. A skip carries what leaves its encoder block, dropout included; the decoder has none."""

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
        x, skips = L, []
        for block in self.encoder:
            skips.append(block(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.bridge(x)
        for block in self.decoder:
            wide = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([wide, skips.pop()], dim=1))
        return self.head(x)
