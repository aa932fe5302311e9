"""The deep U-Net of Drouilhet and L'Herminé (section 3.1, figure 6), of 3x3 filters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from colortrain.models.initialise import normal_init
from colortrain.models.norms import Norm, make_norm, needs_bias
from colortrain.models.unet_config import UNetConfigBase


@dataclass(frozen=True, kw_only=True)
class DeepUNetConfig(UNetConfigBase):
    """A U-Net of 3x3 convolutions: L (B, 1, H, W) to ab (B, 2, H, W) in [-1, 1].

    `levels` is the number of halvings. By default there are 15,674,818 parameters.
    """

    levels: int = 4
    norm: Norm = "batch"

    def channels(self) -> list[int]:
        """Return the number of channels at each resolution, from full to lowest."""
        return self.doubling_channels(self.levels + 1, largest=16)

    def build(self) -> DeepUNet:
        """Return a new network; torch's global random generator draws its weights."""
        network = DeepUNet(self)
        # the paper does not specify the initialisation; this is that of Isola et al.
        # 2017
        normal_init(network)
        return network


class Block(nn.Module):
    """3x3 convolution, normalisation, ReLU.

    It is called ConvBlock by Drouilhet and L'Herminé (section 3.1).
    """

    def __init__(self, inputs: int, outputs: int, norm: Norm, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=needs_bias(norm))
        self.norm = make_norm(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return self.norm(self.conv(x)).relu()


class DeepUNet(nn.Module):
    """The generator that `DeepUNetConfig` describes."""

    def __init__(self, config: DeepUNetConfig) -> None:
        super().__init__()
        widths = config.channels()
        inputs = [1, *widths]
        # "Strided convolutions", section 3.1, without saying which: all but the first,
        # so that 256 px become 16x16. Nor is given where the skip is concatenated: here
        # before the decoder's block.
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
        """Map L (B, 1, H, W) to ab (B, 2, H, W) in [-1, 1]."""
        skips = [self.encoder[0](L)]
        for down in self.encoder[1:]:
            skips.append(down(skips[-1]))
        x = skips.pop()
        # nearest neighbour, as in section 3.1; table 2 has transposed convolutions
        for up in self.decoder:
            x = up(
                torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skips.pop()], dim=1)
            )
        return torch.tanh(self.head(x))
