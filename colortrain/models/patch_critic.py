"""The critic of pix2pix, which scores patches of 70x70 pixels.

(Nampouri et al., appendix A.2; Isola et al. 2017, section 6.1.2.)
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
    70x70 pixels and the network has 2,765,633 parameters.
    """

    base_channels: int = 64
    strided_layers: int = 3
    inputs: int = 3  # channels of L and colour together
    norm: Norm = "batch"

    def __post_init__(self) -> None:
        if self.base_channels < 1 or self.strided_layers < 1:
            raise ValueError("base_channels and strided_layers must be at least 1")

    def check_size(self, size: int) -> None:
        """Raise ValueError if images of `size` px are too small for a single patch."""
        if size // 2**self.strided_layers < 3:
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
