"""The part of SqueezeNet 1.1 that computes feature maps.

(Iandola et al. 2016; version 1.1 is of the authors' repository.) LPIPS and a Fréchet
distance use it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from colortrain.models.pretrained import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SQUEEZENET,
    load_matching,
    load_weights,
)

MIN_SIZE = 17  # pixels: at 16, no pixel is left for the last pooling
WIDTH = 512  # channels of the last feature map
# channels of the Fire modules: those of the 1x1 "squeeze", and half of the outputs
_FIRES = (
    ((16, 64), (16, 64)),
    ((32, 128), (32, 128)),
    ((48, 192), (48, 192), (64, 256), (64, 256)),
)
# indices in `features` of the seven layers that LPIPS uses: the first ReLU, the Fire
# modules before the second and the third pooling, and the last four
_TAPS = (1, 4, 7, 9, 10, 11, 12)


class Fire(nn.Module):
    """A Fire module: a 1x1 convolution, then a 1x1 and a 3x3 one side by side."""

    def __init__(self, inputs: int, squeezed: int, half: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, half, 1)
        self.expand3x3 = nn.Conv2d(squeezed, half, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, 2 half, H, W), with no negative values."""
        squeezed = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1).relu()


class SqueezeNetFeatures(nn.Module):
    """SqueezeNet 1.1 as a feature extractor.

    It maps RGB (B, 3, H, W) in [0, 1] to the list of the seven feature maps that LPIPS
    uses, with 64, 128, 256, 384, 384, 512 and 512 channels; the last four have about
    H / 16 rows. H and W must be at least 17. The 722,496 parameters are frozen and have
    torchvision's names.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU()]
        channels = 64
        for stage in _FIRES:
            layers.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
            for squeezed, half in stage:
                layers.append(Fire(channels, squeezed, half))
                channels = 2 * half
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Return the list of feature maps of `rgb` (B, 3, H, W) in [0, 1]."""
        # in this layout a CPU needs half of the time
        x = ((rgb - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in _TAPS:
                maps.append(x)
        return maps


def load_squeezenet(weights: str, alternative: str) -> SqueezeNetFeatures:
    """Return SqueezeNet 1.1 with `weights`, in eval mode.

    `weights` is "imagenet" (downloaded once), the path of a file, or "random" (always
    the same weights). Raises UserError if the weights cannot be loaded; `alternative`
    is the advice at the end of its message.
    """
    tensors = None if weights == "random" else load_weights(weights, SQUEEZENET, alternative)
    with torch.random.fork_rng([]):  # scoring must not change the random draws
        torch.default_generator.manual_seed(0)
        network = SqueezeNetFeatures()
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
    if tensors is not None:
        load_matching(network, tensors, f"SqueezeNet 1.1 from {weights}")
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
