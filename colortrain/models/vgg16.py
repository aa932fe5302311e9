"""The part of VGG-16 that computes feature maps.

(Simonyan and Zisserman 2015, configuration D.) The perceptual loss, the VGG distance
and LPIPS use it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from colortrain.models.pretrained import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    VGG16,
    load_matching,
    load_weights,
)

_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
DEPTH, DEPTH_LPIPS = 3, 5  # blocks: up to relu3_3, up to relu5_3
MIN_SIZE_LPIPS = 16  # pixels: the blocks before the last one halve the size four times


class VGG16Features(nn.Module):
    """VGG-16 as a feature extractor: RGB (B, 3, H, W) in [0, 1] to feature maps.

    The result is a list with one feature map for each of the first `depth` blocks:
    relu1_2 (B, 64, H, W), relu2_2 (B, 128, H / 2, W / 2), relu3_3 (B, 256, H / 4, W /
    4), relu4_3 and relu5_3. The parameters are frozen and have torchvision's names.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, depth: int = DEPTH) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for block in _BLOCKS[:depth]:
            for width in block:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        layers.pop()  # no layer follows the last feature map
        self.taps = [
            index - 1 for index, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)
        ]
        self.taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Return the list of feature maps of `rgb` (B, 3, H, W) in [0, 1]."""
        x = (rgb - self.mean) / self.std
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                maps.append(x)
        return maps


def load_vgg16(weights: str, alternative: str, depth: int = DEPTH) -> VGG16Features:
    """Return VGG-16's first `depth` blocks with `weights`, in eval mode.

    `weights` is "imagenet" (downloaded once), the path of a file, or "random" (always
    the same weights). Raises UserError if the weights cannot be loaded; `alternative`
    is the advice at the end of its message.
    """
    tensors = None
    if weights != "random":
        tensors = load_weights(weights, VGG16, alternative)
    with torch.random.fork_rng([]):  # the loss must not change the run's random draws
        torch.default_generator.manual_seed(0)
        network = VGG16Features(depth)
        _he_init(network)
    if tensors is not None:
        load_matching(network, tensors, f"VGG-16 from {weights}")
    return network


def _he_init(network: VGG16Features) -> None:
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def feature_distance(generated: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Return the distance between the feature maps of two batches of images, (B,).

    Each argument is a list of feature maps (B, C, H, W), one per layer. The distance is
    the mean squared difference, summed over layers (Drouilhet and L'Herminé, equation
    6).
    """
    layers = [
        (one - other).square().flatten(1).mean(1)
        for one, other in zip(generated, truth, strict=True)
    ]
    return torch.stack(layers).sum(0)
