"""The deep U-Net of 3x3 convolutions with nearest-neighbour upsampling (drouilhet section 3.1, figure 6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from colortrain.models.initialise import normal_init
from colortrain.models.norms import Norm, make_norm, needs_bias


@dataclass(frozen=True, kw_only=True)
class DeepUNetConfig:
    """L (B, 1, H, W) to ab (B, 2, H, W) in [-1, 1]: a block at full size, `levels` halvings, and the mirror image.

    With 64 base channels and 4 levels: 15,674,818 parameters (BatchNorm) and 1024 channels at 16x16 for 256 px.
    The paper's text upsamples by nearest neighbour, its table 2 by transposed convolutions: the text is followed.
    """

    base_channels: int = 64
    levels: int = 4
    norm: Norm = "batch"

    def __post_init__(self) -> None:
        if self.base_channels < 1 or self.levels < 1:
            raise ValueError("base_channels and levels must be at least 1")

    @property
    def outputs(self) -> int:
        """Channels of what it makes."""
        return 2

    def check_size(self, size: int) -> None:
        """Raise `ValueError` if a picture of `size` pixels cannot pass."""
        if size % 2**self.levels:
            fitting = max((level for level in range(1, 12) if size % 2**level == 0), default=0)
            hint = (
                f"set generator.levels={fitting}"
                if fitting
                else "choose a size that is a power of two"
            )
            raise ValueError(
                f"{self.levels} levels need a size divisible by {2**self.levels}, got {size}: {hint}"
            )

    def channels(self) -> list[int]:
        """Channels at full size and after each halving: doubling up to sixteen times the base."""
        return [self.base_channels * min(2**level, 16) for level in range(self.levels + 1)]

    def build(self) -> DeepUNet:
        """The network, weights drawn from torch's global generator; the paper names no start, Isola's is taken."""
        network = DeepUNet(self)
        normal_init(network)
        return network


class Block(nn.Module):
    """3x3 convolution - norm - ReLU ("ConvBlock", section 3.1)."""

    def __init__(self, inputs: int, outputs: int, norm: Norm, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=needs_bias(norm))
        self.norm = make_norm(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


class DeepUNet(nn.Module):
    """See `DeepUNetConfig`."""

    def __init__(self, config: DeepUNetConfig) -> None:
        super().__init__()
        widths = config.channels()
        inputs = [1, *widths]
        self.encoder = nn.ModuleList(
            Block(inputs[i], width, config.norm, stride=2 if i else 1)
            for i, width in enumerate(widths)
        )
        deeper = widths[:0:-1]
        self.decoder = nn.ModuleList(
            Block(below + width, width, config.norm)
            for below, width in zip(deeper, widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], 2, 3, padding=1)

    def forward(self, L: Tensor) -> Tensor:
        skips = [self.encoder[0](L)]
        for down in self.encoder[1:]:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.decoder:
            x = up(
                torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skips.pop()], dim=1)
            )
        return torch.tanh(self.head(x))
