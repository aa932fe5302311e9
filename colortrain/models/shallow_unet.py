"""U-Nets of few levels, with or without thick layers about the bottleneck (valentini sections III and VI)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from colortrain.models.initialise import normal_init
from colortrain.models.pix2pix import Down, Up


@dataclass(frozen=True, kw_only=True)
class ShallowUNetConfig:
    """L (B, 1, H, W) to ab (B, 2, H, W) in [-1, 1]: `depth` halvings, a bottleneck at that size, mirrored up.

    Published: depth 2, 3 and 4; `thick_layers` 0 (Isola's, section VI-A) and 3 ("a triple layer before and after the
    bottleneck", ibid.). The drawings of figures 2 and 6 are all there is of sizes: kernels, widths, BatchNorm,
    activations, tanh and starting weights are Isola et al. 2017's (section 6.1.1). What the text adds is read so:
    the bottleneck's "sequential convolutions" (section III) are two 3x3, the least that is a sequence; the thick
    layers are 3x3 too; every decoder layer sees the encoder layer "at its same depth" (ibid.), the deepest too.
    With 64 base channels and depth 4: 12,985,986 parameters plain, 27,147,906 with thick layers.
    """

    base_channels: int = 64
    depth: int = 4
    thick_layers: int = 0  # on either side of the bottleneck
    bottleneck_layers: int = 2
    dropout: float = 0.0  # in decoder layers; G: x -> y takes no noise (section III)

    def __post_init__(self) -> None:
        if self.base_channels < 1 or self.depth < 1:
            raise ValueError("base_channels and depth must be at least 1")
        if self.thick_layers < 0 or self.bottleneck_layers < 0:
            raise ValueError("thick_layers and bottleneck_layers must be at least 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def outputs(self) -> int:
        """Channels of what it makes."""
        return 2

    def check_size(self, size: int) -> None:
        """Raise `ValueError` if a picture of `size` pixels cannot pass, or leaves BatchNorm a single pixel."""
        step = 2**self.depth
        if size % step or size < 2 * step:
            raise ValueError(
                f"depth {self.depth} needs a size that is {step} times 2 or more, got {size}"
            )

    def channels(self) -> list[int]:
        """Channels after each encoder layer: doubling up to eight times the base."""
        return [self.base_channels * min(2**level, 8) for level in range(self.depth)]

    def build(self) -> ShallowUNet:
        """The network, weights drawn from torch's global generator."""
        network = ShallowUNet(self)
        normal_init(network)
        return network


class Flat(nn.Module):
    """ReLU - 3x3 convolution of stride 1 - BatchNorm, in the order of `Down` and `Up`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.relu()))


class ShallowUNet(nn.Module):
    """See `ShallowUNetConfig`."""

    def __init__(self, config: ShallowUNetConfig) -> None:
        super().__init__()
        widths = config.channels()
        self.encoder = nn.ModuleList(
            Down(inputs, width, first=level == 0)
            for level, (inputs, width) in enumerate(zip([1, *widths], widths, strict=False))
        )
        between = 2 * config.thick_layers + config.bottleneck_layers
        self.bottleneck = nn.Sequential(*(Flat(widths[-1]) for _ in range(between)))
        self.decoder = nn.ModuleList(
            Up(2 * widths[level], widths[level - 1], config.dropout)
            for level in range(config.depth - 1, 0, -1)
        )
        self.head = nn.ConvTranspose2d(2 * widths[0], 2, 4, stride=2, padding=1)

    def forward(self, L: Tensor) -> Tensor:
        x, skips = L, []
        for down in self.encoder:
            x = down(x)
            skips.append(x)
        x = self.bottleneck(x)
        for up in self.decoder:
            x = up(torch.cat([x, skips.pop()], dim=1))
        return torch.tanh(self.head(torch.cat([x, skips.pop()], dim=1).relu()))
