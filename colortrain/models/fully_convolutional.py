"""U-Nets that predict L, a and b, and a critic, by Nazeri et al. (sections 3.1, 3.2).

The paper does not give the order and widths of the layers. They are taken from the
authors' code, github.com/ImagingLab/Colorizing-with-GANs: src/models.py at commit
6b8e459bf1f8 and src/networks.py at 41e8c68957f7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from colortrain.models.norms import make_norm
from colortrain.models.unet_config import UNetConfigBase, check_dropout

_SLOPE = 0.2  # of LeakyReLU, section 3.1


def same_conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return a 4x4 convolution with bias and TensorFlow's padding "same".

    It maps (B, inputs, H, W) to (B, outputs, H / stride, W / stride).
    """
    # at stride 1 a kernel of four pixels has no centre: one pixel is padded before and
    # two after the image
    padding = nn.ZeroPad2d((1, 2, 1, 2)) if stride == 1 else nn.ZeroPad2d(1)
    return nn.Sequential(padding, nn.Conv2d(inputs, outputs, 4, stride=stride))


def he_init(module: nn.Module) -> None:
    """Initialise convolutions as He et al. 2015: weights from N(0, 2 / n), zero biases.

    2 / n is the variance, and n is the number of inputs that contribute to one output
    (equations 10 and 12).
    """
    for child in module.modules():
        if isinstance(child, nn.Conv2d | nn.ConvTranspose2d):
            # the stride of a transposed convolution spreads its inputs apart
            stride = math.prod(child.stride) if isinstance(child, nn.ConvTranspose2d) else 1
            connections = child.in_channels * math.prod(child.kernel_size) / stride
            nn.init.normal_(child.weight, 0.0, math.sqrt(2 / connections))
            if child.bias is not None:
                nn.init.zeros_(child.bias)


@dataclass(frozen=True, kw_only=True)
class FullyConvolutionalConfig(UNetConfigBase):
    """A U-Net that predicts L too: L (B, 1, H, W) to Lab (B, 3, H, W) in [-1, 1].

    `levels` is the number of halvings. Dropout follows the first `dropout_blocks`
    decoder blocks. The network for CIFAR-10 (4 levels, `first_width` 2) has 16,654,851
    parameters. The network for Places365 (7 levels, `first_width` 1) has 42,023,811.
    """

    levels: int = 4
    first_width: int = 2  # channels after the first halving / base_channels; doubles up to 8
    # as in the authors' code; in section 3.3 the first layer has no BatchNorm, so False
    # is as in the paper, with 128 parameters fewer
    first_norm: bool = True
    dropout: float = 0.5
    # section 3.2: "on several layers"
    dropout_blocks: int = 2

    min_bottleneck = 2  # BatchNorm needs more than one pixel per channel at batch size 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(1, "first_width")
        check_dropout(self.dropout)

    @property
    def outputs(self) -> int:
        """Number of output channels: L, a and b."""
        return 3

    def channels(self) -> list[int]:
        """Return the numbers of channels: at full size, then after each halving."""
        # Section 3.1: "doubled after each step". In the authors' code, as here, they
        # are 512 at most, and on Places365 the first two are equal.
        widths = [min(self.first_width * 2**level, 8) for level in range(self.levels)]
        return [self.base_channels * width for width in (1, *widths)]

    def build(self) -> FullyConvolutional:
        """Return a new network; torch's global random generator draws its weights."""
        network = FullyConvolutional(self)
        he_init(network)
        return network


class Contract(nn.Module):
    """An encoder layer: 4x4 convolution, optional BatchNorm, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.conv = same_conv(inputs, outputs, stride)
        self.norm = make_norm("batch" if norm else "none", outputs)
        self.activation = nn.LeakyReLU(_SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return self.activation(self.norm(self.conv(x)))


class Expand(nn.Module):
    """A decoder block: 4x4 transposed convolution, BatchNorm, ReLU, maybe dropout."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Upsample `x` (B, inputs, H, W) and concatenate it to `skip` (B, C, 2 H, 2 W).

        The result is (B, C + outputs, 2 H, 2 W).
        """
        # after BatchNorm and ReLU, as in the authors' code; in section 3.1 before them
        return torch.cat([skip, self.dropout(self.norm(self.conv(x)).relu())], dim=1)


class FullyConvolutional(nn.Module):
    """The generator that `FullyConvolutionalConfig` describes."""

    def __init__(self, config: FullyConvolutionalConfig) -> None:
        super().__init__()
        widths = config.channels()
        inputs = [1, *widths]
        # stride 1 in the first layer: as in the authors' code; section 3.1 has stride 2
        # in all of them
        self.encoder = nn.ModuleList(
            Contract(inputs[i], width, stride=1 if i == 0 else 2, norm=i > 0 or config.first_norm)
            for i, width in enumerate(widths)
        )
        skips = widths[-2::-1]
        self.decoder = nn.ModuleList(
            Expand(
                widths[-1] if i == 0 else 2 * skips[i - 1],
                width,
                config.dropout if i < config.dropout_blocks else 0.0,
            )
            for i, width in enumerate(skips)
        )
        self.head = nn.Conv2d(2 * widths[0], 3, 1)

    def forward(self, L: Tensor) -> Tensor:
        """Map L (B, 1, H, W) to Lab (B, 3, H, W) in [-1, 1]."""
        skips = [self.encoder[0](L)]
        for contract in self.encoder[1:]:
            skips.append(contract(skips[-1]))
        x = skips.pop()
        for expand in self.decoder:
            x = expand(x, skips.pop())
        return self.head(x).tanh()


@dataclass(frozen=True, kw_only=True)
class SameCriticConfig:
    """A critic: L (B, 1, H, W) and colour (B, C, H, W) to logits (B, 1, H / 8, W / 8).

    `inputs` is C + 1. By default there are 2,767,553 parameters.
    """

    base_channels: int = 64
    inputs: int = 4  # channels of L and colour together

    def __post_init__(self) -> None:
        if self.base_channels < 1 or self.inputs < 2:
            raise ValueError("base_channels must be at least 1 and inputs at least 2")

    def check_size(self, size: int) -> None:
        """Raise ValueError unless `size`, in pixels, is divisible by 8."""
        if size % 8:
            raise ValueError(f"SameCritic requires a size divisible by 8, got {size}")

    def build(self) -> SameCritic:
        """Return a new network; torch's global random generator draws its weights."""
        network = SameCritic(self)
        he_init(network)
        return network


class SameCritic(nn.Module):
    """The critic that `SameCriticConfig` describes."""

    def __init__(self, config: SameCriticConfig) -> None:
        super().__init__()
        widths = [config.base_channels * width for width in (1, 2, 4, 8)]
        inputs = [config.inputs, *widths]
        # In section 3.2 the layers before the last have stride 2: the fourth has stride
        # 1, as in the authors' code. The first and the last layer have no BatchNorm
        # (section 3.3). The sigmoid of section 3.2 is part of the loss.
        # The output is a "scalar" (section 2), "1 dimensional" and "a probability
        # value" (3.2). It is read as in the code: a map of logits (4x4 at 32 px, 32x32
        # at 256 px), and the loss is the mean over the map.
        self.layers = nn.Sequential(
            *(
                Contract(inputs[i], width, stride=1 if i == len(widths) - 1 else 2, norm=i > 0)
                for i, width in enumerate(widths)
            ),
            same_conv(widths[-1], 1, stride=1),
        )

    def forward(self, L: Tensor, colour: Tensor) -> Tensor:
        """Map L (B, 1, H, W) and colour (B, C, H, W) to logits (B, 1, H / 8, W / 8)."""
        return self.layers(torch.cat([L, colour], dim=1))
