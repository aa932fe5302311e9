"""nazeri's U-Nets with three channels out (section 3.1) and their critic (section 3.2), in TensorFlow's "same" padding.

Layer plans are those of the authors' public code (github.com/ImagingLab/Colorizing-with-GANs, src/models.py), which the
paper's text abridges. Where the two differ, the configs say what is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from colortrain.models.norms import make_norm

_SLOPE = 0.2  # section 3.1


def same_conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A biased 4x4 convolution whose output is ceil(size / stride) high and wide, as TensorFlow's padding "same".

    At stride 1 four taps have no middle: three pixels are added, one before and two after.
    """
    padding = nn.ZeroPad2d((1, 2, 1, 2)) if stride == 1 else nn.ZeroPad2d(1)
    return nn.Sequential(padding, nn.Conv2d(inputs, outputs, 4, stride=stride))


def he_init(module: nn.Module) -> None:
    """N(0, sqrt(2 / n)), n the connections that end in one output, and zero biases (He et al. 2015, equations 10, 12).

    For a transposed convolution n is inputs * kernel^2 / stride^2: each output sees that many of its taps.
    """
    for child in module.modules():
        if isinstance(child, nn.Conv2d | nn.ConvTranspose2d):
            spread = math.prod(child.stride) if isinstance(child, nn.ConvTranspose2d) else 1
            connections = child.in_channels * math.prod(child.kernel_size) / spread
            nn.init.normal_(child.weight, 0.0, math.sqrt(2 / connections))
            if child.bias is not None:
                nn.init.zeros_(child.bias)


@dataclass(frozen=True, kw_only=True)
class FullyConvolutionalConfig:
    """L (B, 1, H, W) to Lab (B, 3, H, W) in [-1, 1]: a full-resolution layer, `levels` halvings, as many doublings.

    The decoder mirrors the encoder, and every encoder output but the last is a skip, the full-resolution one too.
    CIFAR-10's (4 levels, `first_width` 2) has 16,654,851 parameters; Places' (7 levels, `first_width` 1) 42,023,811:
    both end in 2x2 pixels, at 32 and at 256 px.

    The paper contradicts itself or its code twice. Section 3.3 has no BatchNorm in the first layer; the code, and
    with it the counts above, has one: `first_norm=False` is the paper's (128 parameters fewer). Section 3.1 joins the
    skip before BatchNorm and ReLU; the code joins it after them, so do we. Dropout stands "on several layers"
    (section 3.2): after the first `dropout_blocks` decoder blocks.
    """

    base_channels: int = 64
    levels: int = 4
    first_width: int = (
        2  # of the first halving, in base_channels; each next has twice as many, up to 8
    )
    first_norm: bool = True
    dropout: float = 0.5
    dropout_blocks: int = 2

    def __post_init__(self) -> None:
        if min(self.base_channels, self.levels, self.first_width) < 1:
            raise ValueError("base_channels, levels and first_width must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def outputs(self) -> int:
        """Channels of what it makes: L, a and b."""
        return 3

    def check_size(self, size: int) -> None:
        """Raise `ValueError` if a picture of `size` pixels cannot pass."""
        step = 2**self.levels
        if size % step or size < 2 * step:  # BatchNorm needs more than one pixel at the bottom
            fitting = max(
                (level for level in range(1, 12) if size % 2**level == 0 and size > 2**level),
                default=0,
            )
            hint = (
                f"set generator.levels={fitting}"
                if fitting
                else "choose a size that is a power of two"
            )
            raise ValueError(
                f"{self.levels} levels need a size that is {step} times 2 or more, got {size}: {hint}"
            )

    def channels(self) -> list[int]:
        """Channels after the full-resolution layer and after each halving."""
        widths = [min(self.first_width * 2**level, 8) for level in range(self.levels)]
        return [self.base_channels * width for width in (1, *widths)]

    def build(self) -> FullyConvolutional:
        """The network, weights drawn from torch's global generator."""
        network = FullyConvolutional(self)
        he_init(network)
        return network


class Contract(nn.Module):
    """4x4 convolution - [BatchNorm] - LeakyReLU; the result is also the skip."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.conv = same_conv(inputs, outputs, stride)
        self.norm = make_norm("batch" if norm else "none", outputs)
        self.activation = nn.LeakyReLU(_SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class Expand(nn.Module):
    """4x4 transposed convolution of stride 2 - BatchNorm - ReLU [- dropout], then the skip beside it."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([skip, self.dropout(self.norm(self.conv(x)).relu())], dim=1)


class FullyConvolutional(nn.Module):
    """See `FullyConvolutionalConfig`."""

    def __init__(self, config: FullyConvolutionalConfig) -> None:
        super().__init__()
        widths = config.channels()
        inputs = [1, *widths]
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
        skips = [self.encoder[0](L)]
        for contract in self.encoder[1:]:
            skips.append(contract(skips[-1]))
        x = skips.pop()
        for expand in self.decoder:
            x = expand(x, skips.pop())
        return self.head(x).tanh()


@dataclass(frozen=True, kw_only=True)
class SameCriticConfig:
    """L (B, 1, H, W) and colour (B, inputs - 1, H, W) to a map of scores (logits) an eighth as high and wide.

    Widths 64, 128, 256, 512 at strides 2, 2, 2, 1, then one channel at stride 1: 2,767,553 parameters with 4 inputs, a
    4x4 map at 32 px. BatchNorm but in the first and last layer (section 3.3). The paper's sigmoid (section 3.2) is in
    the loss; its "series of stride 2" is the code's, whose last two layers have stride 1.
    """

    base_channels: int = 64
    inputs: int = 4  # L and colour together

    def __post_init__(self) -> None:
        if self.base_channels < 1 or self.inputs < 2:
            raise ValueError("base_channels must be at least 1 and inputs at least 2")

    def check_size(self, size: int) -> None:
        """Raise `ValueError` if three halvings do not fit into `size` pixels."""
        if size % 8:
            raise ValueError(
                f"three halvings need a size divisible by 8, got {size}: choose such a size"
            )

    def build(self) -> SameCritic:
        """The network, weights drawn from torch's global generator."""
        network = SameCritic(self)
        he_init(network)
        return network


class SameCritic(nn.Module):
    """See `SameCriticConfig`."""

    def __init__(self, config: SameCriticConfig) -> None:
        super().__init__()
        widths = [config.base_channels * width for width in (1, 2, 4, 8)]
        inputs = [config.inputs, *widths]
        self.layers = nn.Sequential(
            *(
                Contract(inputs[i], width, stride=1 if i == len(widths) - 1 else 2, norm=i > 0)
                for i, width in enumerate(widths)
            ),
            same_conv(widths[-1], 1, stride=1),
        )

    def forward(self, L: Tensor, colour: Tensor) -> Tensor:
        return self.layers(torch.cat([L, colour], dim=1))
