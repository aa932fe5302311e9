"""A critic that gives an image one score (Arun, section II-D, figure 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class GlobalCriticConfig:
    """A critic: L (B, 1, H, W) and colour (B, C, H, W) to unbounded scores (B, 1).

    `inputs` is C + 1. By default there are 2,757,057 parameters.
    """

    base_channels: int = 64
    blocks: int = 4
    inputs: int = 3  # channels of L and colour together

    def __post_init__(self) -> None:
        if self.base_channels < 1 or self.blocks < 1:
            raise ValueError("base_channels and blocks must be at least 1")

    def check_size(self, size: int) -> None:
        """Raise ValueError if InstanceNorm would get fewer than 2x2 pixels."""
        if size // 2**self.blocks < 2:
            raise ValueError(
                f"blocks={self.blocks} requires a size of at least {2 ** (self.blocks + 1)} px, "
                f"got {size}: set fewer critic.blocks"
            )

    def build(self) -> GlobalCritic:
        """Return a new network; torch's global random generator draws its weights."""
        # Arun does not specify the initialisation, so PyTorch's default is used
        return GlobalCritic(self)


class GlobalCritic(nn.Module):
    """The critic that `GlobalCriticConfig` describes."""

    def __init__(self, config: GlobalCriticConfig) -> None:
        super().__init__()
        widths = [
            config.inputs,
            *(config.base_channels * 2**block for block in range(config.blocks)),
        ]
        layers: list[nn.Module] = []
        # padding 1, and InstanceNorm without parameters: not given in the paper
        for block in range(config.blocks):
            layers.append(nn.Conv2d(widths[block], widths[block + 1], 4, stride=2, padding=1))
            if block:
                # it does not mix images: the gradient penalty of an image depends on no
                # other
                layers.append(nn.InstanceNorm2d(widths[block + 1]))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, L: Tensor, colour: Tensor) -> Tensor:
        """Map L (B, 1, H, W) and colour (B, C, H, W) to scores (B, 1)."""
        return self.head(self.layers(torch.cat([L, colour], dim=1)).mean(dim=(2, 3)))
