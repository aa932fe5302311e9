"""A generator: a U-Net of residual blocks (Arun, section II-C, figure 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from colortrain.models.unet_config import UNetConfigBase, check_dropout


@dataclass(frozen=True, kw_only=True)
class ResUNetConfig(UNetConfigBase):
    """A U-Net of residual blocks: L (B, 1, H, W) to ab (B, 2, H, W), unbounded.

    By default there are 8,216,194 parameters; with `own_bridge` there are 12,936,834
    (counted here: Arun gives no number).
    """

    # encoder blocks above the bridge, each followed by pooling; not given, see
    # `own_bridge`
    levels: int = 3
    dropout: float = 0.2  # after each encoder block and the bridge
    # section II-C item 5 says only "dropout value of 0.2": whole channels of an image
    # (torch's Dropout2d), or single values (Dropout)
    dropout_unit: Literal["channels", "values"] = "channels"
    # Section II-C lists four encoder widths, 64 to 512 (item 1), and a bridge, "a
    # single ResBlock at the bottleneck" (item 2). By default the block of 512 channels
    # is the bridge; with True, a second block of 512 channels follows it.
    own_bridge: bool = False

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

    (Arun, section II-C, item 4. In item 1 a ReLU follows the second BN too, before the
    addition.) With `identity` the input itself is added instead of its projection,
    which requires equal numbers of channels.
    """

    def __init__(self, inputs: int, outputs: int, identity: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        # an "identity shortcut" in the paper, but every block except a bridge of its
        # own changes the number of channels
        self.shortcut = nn.Identity() if identity else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W), with no negative values."""
        return (self.body(x) + self.shortcut(x)).relu()


def _dropout(config: ResUNetConfig) -> nn.Module:
    layer = nn.Dropout2d if config.dropout_unit == "channels" else nn.Dropout
    return layer(config.dropout)


class ResUNet(nn.Module):
    """The generator that `ResUNetConfig` describes."""

    def __init__(self, config: ResUNetConfig) -> None:
        super().__init__()
        # Not given in the paper: convolutions without bias before BatchNorm, a 1x1 head
        # without activation, and align_corners=False below.
        *widths, bridge = config.channels()
        self.encoder = nn.ModuleList(
            nn.Sequential(ResBlock(inputs, width), _dropout(config))
            for inputs, width in zip([1, *widths], widths, strict=False)
        )
        self.bridge = nn.Sequential(ResBlock(widths[-1], bridge), _dropout(config))
        if config.own_bridge:
            self.bridge.extend([ResBlock(bridge, bridge, identity=True), _dropout(config)])
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
