"""The critics of pix2pix, which score patches of 70x70 pixels, or of other sizes.

(Nampouri et al., section 4.2, appendix A.3, figure 15; Isola et al. 2017, section
6.1.2.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from colortrain.models.initialise import normal_init
from colortrain.models.norms import Norm, make_norm, needs_bias


@dataclass(frozen=True, kw_only=True)
class PatchCriticConfig:
    """A critic: L (B, 1, H, W) and colour (B, C, H, W) to logits (B, 1, h, w).

    `inputs` is C + 1. Each logit sees one patch of the image. By default, patches have
    70x70 pixels and the network has 2,765,633 parameters. `strided_layers` from 0 to 5
    gives patches of 1, 16, 34, 70, 142 and 286 pixels. With 0, all convolutions are
    1x1, there are as many logits as pixels, and 8,833 parameters.
    """

    base_channels: int = 64
    # Isola et al. compare patches of 1, 16, 70 and 286 pixels (section 4.4); Valentini
    # and Nagaro Quiroz leave "exploring different patch sizes" open (section VII)
    strided_layers: int = 3
    inputs: int = 3  # channels of L and colour together
    norm: Norm = "batch"

    def __post_init__(self) -> None:
        if self.base_channels < 1 or self.strided_layers < 0:
            raise ValueError("base_channels must be at least 1, strided_layers at least 0")

    def check_size(self, size: int) -> None:
        """Raise ValueError if images of `size` px are too small for a single patch."""
        if self.strided_layers and size // 2**self.strided_layers < 3:
            raise ValueError(
                f"strided_layers={self.strided_layers} leaves no patch in an image of {size} px: "
                "set fewer critic.strided_layers"
            )

    def build(self) -> PatchCritic:
        """Return a new network; torch's global random generator draws its weights."""
        network = PatchCritic(self)
        normal_init(network)
        return network


class PatchCritic(nn.Module):
    """The critic that `PatchCriticConfig` describes."""

    def __init__(self, config: PatchCriticConfig) -> None:
        super().__init__()
        if not config.strided_layers:
            self.layers = _pixel_layers(config)
            return
        widths = [config.base_channels * min(2**i, 8) for i in range(config.strided_layers + 1)]
        layers: list[nn.Module] = [
            nn.Conv2d(config.inputs, widths[0], 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for i in range(1, len(widths)):
            stride = 2 if i < config.strided_layers else 1
            layers += [
                nn.Conv2d(
                    widths[i - 1],
                    widths[i],
                    4,
                    stride=stride,
                    padding=1,
                    bias=needs_bias(config.norm),
                ),
                make_norm(config.norm, widths[i]),
                nn.LeakyReLU(0.2),
            ]
        # The strides are 2, 2, 2, 1, 1 by default. The last step of figure 15 of
        # Nampouri et al., from 512@16x16 to 1@30x30, is impossible.
        layers.append(nn.Conv2d(widths[-1], 1, 4, stride=1, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, L: Tensor, colour: Tensor) -> Tensor:
        """Map L (B, 1, H, W) and colour (B, C, H, W) to logits (B, 1, h, w)."""
        return self.layers(torch.cat([L, colour], dim=1))


def _pixel_layers(config: PatchCriticConfig) -> nn.Sequential:
    """Return the layers of a critic of single pixels (Isola et al., section 6.1.2)."""
    first, second = config.base_channels, 2 * config.base_channels
    return nn.Sequential(
        nn.Conv2d(config.inputs, first, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(first, second, 1, bias=needs_bias(config.norm)),
        make_norm(config.norm, second),
        nn.LeakyReLU(0.2),
        nn.Conv2d(second, 1, 1),
    )
