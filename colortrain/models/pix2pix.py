"""The pix2pix U-Net generator.

(Nampouri et al., appendix A.1 and figures 10-11; Isola et al. 2017, section 6.1.1.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from colortrain.models.initialise import normal_init
from colortrain.models.unet_config import UNetConfigBase, check_dropout


@dataclass(frozen=True, kw_only=True)
class UNetConfig(UNetConfigBase):
    """A pix2pix U-Net: L (B, 1, H, W) to ab (B, 2, H, W) in [-1, 1].

    `levels` is the number of halvings. By default there are 54,410,370 parameters, and
    the bottleneck has 1x1 pixels at 256 px.
    """

    levels: int = 8
    dropout: float = 0.5  # in the first `dropout_blocks` decoder blocks
    dropout_blocks: int = 3

    min_halvings = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dropout(self.dropout)

    def channels(self) -> list[int]:
        """Return the number of channels after each halving of the image."""
        return self.doubling_channels(self.levels, largest=8)

    def build(self) -> UNet:
        """Return a new network; torch's global random generator draws its weights."""
        network = UNet(self)
        normal_init(network)
        return network


class Down(nn.Module):
    """An encoder layer: optional LeakyReLU, 4x4 convolution, optional BatchNorm."""

    def __init__(self, inputs: int, outputs: int, first: bool = False, last: bool = False) -> None:
        super().__init__()
        self.activation = nn.Identity() if first else nn.LeakyReLU(0.2)
        self.conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=last)
        self.norm = nn.Identity() if first or last else nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / 2, W / 2)."""
        return self.norm(self.conv(self.activation(x)))


class Up(nn.Module):
    """A decoder layer: ReLU, 4x4 transposed convolution, BatchNorm, maybe dropout."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2 H, 2 W)."""
        return self.dropout(self.norm(self.conv(x.relu())))


class UNet(nn.Module):
    """The generator that `UNetConfig` describes."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        widths = config.channels()
        last = len(widths) - 1
        inputs = [1, *widths]
        self.encoder = nn.ModuleList(
            Down(inputs[i], width, first=i == 0, last=i == last) for i, width in enumerate(widths)
        )
        outputs = widths[-2::-1]
        self.decoder = nn.ModuleList(
            Up(
                widths[-1] if i == 0 else 2 * outputs[i - 1],
                width,
                config.dropout if i < config.dropout_blocks else 0.0,
            )
            for i, width in enumerate(outputs)
        )
        self.head = nn.ConvTranspose2d(2 * widths[0], 2, 4, stride=2, padding=1)

    def forward(self, L: Tensor) -> Tensor:
        """Map L (B, 1, H, W) to ab (B, 2, H, W) in [-1, 1]."""
        skips = [self.encoder[0](L)]
        for down in self.encoder[1:]:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.decoder:
            x = torch.cat([up(x), skips.pop()], dim=1)
        return torch.tanh(self.head(x.relu()))
