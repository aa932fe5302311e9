"""The convolutions of VGG-16 (Simonyan and Zisserman 2015, configuration D) as a measure of what pictures look like."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from colortrain.models.pretrained import VGG16, fill, load_weights

_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
DEPTH, DEPTH_LPIPS = 3, 5  # blocks: up to relu3_3, up to relu5_3
_MEAN, _STD = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # of ImageNet's RGB, with which torchvision trained


class VGG16Features(nn.Module):
    """RGB in [0, 1], (B, 3, H, W), to the maps of relu1_2 (B, 64, H, W), relu2_2 and relu3_3 (B, 256, H / 4, W / 4),
    one a block; with `depth` 5, which LPIPS takes, relu4_3 and relu5_3 too.

    1,735,488 parameters, none of which learns; their names and shapes are torchvision's ("features.0.weight").
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
        layers.pop()  # nothing looks at what is behind the last map
        self.taps = [
            place - 1 for place, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)
        ]
        self.taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, rgb: Tensor) -> list[Tensor]:
        x = (rgb - self.mean) / self.std
        maps = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in self.taps:
                maps.append(x)
        return maps


def load_vgg16(weights: str, without: str, depth: int = DEPTH) -> VGG16Features:
    """VGG-16's features with `weights`: "imagenet", a file's path, or "random" (He's start, always the same one).

    `without`: what an error tells to do in order to go without. Raises `UserError` if the weights cannot be had.
    """
    tensors = None
    if weights != "random":
        tensors = load_weights(weights, VGG16, without)
    with torch.random.fork_rng([]):  # the run's own draws must not follow from the loss
        torch.default_generator.manual_seed(0)
        network = VGG16Features(depth)
        _he_init(network)
    if tensors is not None:
        fill(network, tensors, f"VGG-16 from {weights}")
    return network


def _he_init(network: VGG16Features) -> None:
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def feature_distance(found: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Sum over layers of the mean squared difference of feature maps: (B,) (drouilhet equation 6)."""
    layers = [
        (one - other).square().flatten(1).mean(1) for one, other in zip(found, truth, strict=True)
    ]
    return torch.stack(layers).sum(0)
