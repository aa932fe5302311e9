"""A critic with one score for each square of a grid over the image.

(Drouilhet and L'Herminé, section 3.1.)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from colortrain.models.initialise import normal_init
from colortrain.models.norms import MinibatchStddev, Norm, make_norm, needs_bias


@dataclass(frozen=True, kw_only=True)
class SquareCriticConfig:
    """A critic: L (B, 1, H, W) and colour (B, C, H, W) to logits (B, 1, h, w).

    `inputs` is C + 1, h is H / 2^depth, and w is W / 2^depth. `minibatch_stddev` adds a
    channel before the last layer (section 9.2). By default there are 2,765,633
    parameters, and each logit depends on 94x94 pixels: the paper's "16x16 region" is
    its cell of the grid.
    """

    # Section 3.1 gives 4x4 kernels, stride 2, LeakyReLU and the 16x16 map only, and
    # section 7.1.1 implies BatchNorm. The rest is read as in Isola et al. 2017: 64 to
    # 512 channels, slope 0.2, no norm in the first layer, a last layer of stride 1. The
    # critic returns logits (section 3.2: BCEWithLogitsLoss), although sections 7.1.1
    # and 8.2.1 speak of a probability and of a sigmoid.
    base_channels: int = 64
    # section 3.1 also tries 3 (too weak) and 5 (too strong)
    depth: int = 4
    inputs: int = 3  # channels of L and colour together
    norm: Norm = "batch"
    minibatch_stddev: bool = False

    def __post_init__(self) -> None:
        if self.base_channels < 1 or self.depth < 1:
            raise ValueError("base_channels and depth must be at least 1")

    def check_size(self, size: int) -> None:
        """Raise ValueError unless `size`, in pixels, is divisible by 2^depth.

        With InstanceNorm it must also be at least 2 * 2^depth.
        """
        least = 2 if self.norm == "instance" else 1  # InstanceNorm of a single pixel is always 0
        if size % 2**self.depth or size >> self.depth < least:
            raise ValueError(
                f"depth={self.depth} requires a size divisible by {2**self.depth} and at least "
                f"{least << self.depth}, got {size}: set a smaller critic.depth"
            )

    def build(self) -> SquareCritic:
        """Return a new network; torch's global random generator draws its weights."""
        network = SquareCritic(self)
        # the paper does not specify the initialisation; this is that of Isola et al.
        # 2017
        normal_init(network)
        return network


class SquareCritic(nn.Module):
    """The critic that `SquareCriticConfig` describes."""

    def __init__(self, config: SquareCriticConfig) -> None:
        super().__init__()
        widths = [config.base_channels * min(2**i, 8) for i in range(config.depth)]
        layers: list[nn.Module] = [
            nn.Conv2d(config.inputs, widths[0], 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for before, width in pairwise(widths):
            layers += [
                nn.Conv2d(before, width, 4, stride=2, padding=1, bias=needs_bias(config.norm)),
                make_norm(config.norm, width),
                nn.LeakyReLU(0.2),
            ]
        if config.minibatch_stddev:
            layers.append(MinibatchStddev())
        last = widths[-1] + config.minibatch_stddev
        # extra padding on two sides, so that the 4x4 kernel keeps height and width
        layers += [nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(last, 1, 4, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, L: Tensor, colour: Tensor) -> Tensor:
        """Map L (B, 1, H, W) and colour (B, C, H, W) to a map of logits (B, 1, h, w).

        h is H / 2^depth, and w is W / 2^depth.
        """
        return self.layers(torch.cat([L, colour], dim=1))
