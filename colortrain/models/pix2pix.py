"""The pix2pix U-Net generator (nampouri appendix A.1 and figures 10-11; Isola et al. 2017, section 6.1.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from colortrain.models.initialise import normal_init


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """L (B, 1, H, W) to ab (B, 2, H, W) in [-1, 1]: `levels` halvings down to a bottleneck, mirrored up, skips between.

    With 64 base channels and 8 levels: 54,410,370 parameters, a 1x1 bottleneck at 256 px.
    """

    base_channels: int = 64
    levels: int = 8
    dropout: float = 0.5  # in the first `dropout_blocks` decoder blocks
    dropout_blocks: int = 3

    def __post_init__(self) -> None:
        if self.base_channels < 1 or self.levels < 2:
            raise ValueError("base_channels must be at least 1 and levels at least 2")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def outputs(self) -> int:
        """Channels of what it makes."""
        return 2

    def check_size(self, size: int) -> None:
        """Raise `ValueError` if a picture of `size` pixels cannot pass."""
        if size % 2**self.levels:
            fitting = max((level for level in range(2, 12) if size % 2**level == 0), default=0)
            hint = (
                f"set generator.levels={fitting}"
                if fitting
                else "choose a size that is a power of two"
            )
            raise ValueError(
                f"{self.levels} levels need a size divisible by {2**self.levels}, got {size}: {hint}"
            )

    def channels(self) -> list[int]:
        """Channels after each encoder level: doubling up to eight times the base."""
        return [self.base_channels * min(2**level, 8) for level in range(self.levels)]

    def build(self) -> UNet:
        """The network, weights drawn from torch's global generator."""
        network = UNet(self)
        normal_init(network)
        return network


class Down(nn.Module):
    """[LeakyReLU] - 4x4 convolution of stride 2 - [BatchNorm]; the result, not yet activated, is also the skip."""

    def __init__(self, inputs: int, outputs: int, first: bool = False, last: bool = False) -> None:
        super().__init__()
        self.activation = nn.Identity() if first else nn.LeakyReLU(0.2)
        self.conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=last)
        self.norm = nn.Identity() if first or last else nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.activation(x)))


class Up(nn.Module):
    """ReLU - 4x4 transposed convolution of stride 2 - BatchNorm [- dropout]."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.norm(self.conv(x.relu())))


class UNet(nn.Module):
    """See `UNetConfig`."""

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
        skips = [self.encoder[0](L)]
        for down in self.encoder[1:]:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.decoder:
            x = torch.cat([up(x), skips.pop()], dim=1)
        return torch.tanh(self.head(x.relu()))
