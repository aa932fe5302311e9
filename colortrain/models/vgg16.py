"""Feature maps of VGG-16 (Simonyan and Zisserman 2015, configuration D).

They are used by the perceptual loss, the VGG distance and LPIPS.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from colortrain.models.pretrained import VGG16, load_matching, load_weights

_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
DEPTH, DEPTH_LPIPS = 3, 5  # blocks: up to relu3_3, up to relu5_3
_MEAN = (0.485, 0.456, 0.406)  # of ImageNet's RGB, as used to train torchvision's weights
_STD = (0.229, 0.224, 0.225)


class VGG16Features(nn.Module):
    """RGB (B, 3, H, W) in [0, 1] to a list of feature maps, one per block.

    With `depth` 3: relu1_2 (B, 64, H, W), relu2_2 (B, 128, H / 2, W / 2) and relu3_3
    (B, 256, H / 4, W / 4); with `depth` 5, for LPIPS, relu4_3 and relu5_3 too. The
    1,735,488 parameters (of depth 3) are frozen; their names and shapes are
    torchvision's ("features.0.weight").
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
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Return the feature maps of RGB (B, 3, H, W) in [0, 1]."""
        x = (rgb - self.mean) / self.std
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                maps.append(x)
        return maps


def load_vgg16(weights: str, alternative: str, depth: int = DEPTH) -> VGG16Features:
    """Return the feature extractor with `weights`.

    `weights` is "imagenet", the path of a file, or "random" (He's initialisation,
    always the same weights). `alternative` is the advice that an error message ends
    with: how to do without the weights. Raises `UserError` if they cannot be loaded.
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
    """Return the mean squared difference of feature maps, summed over layers: (B,).

    Each argument is a list of (B, C, H, W), one per layer (drouilhet equation 6).
    """
    layers = [
        (one - other).square().flatten(1).mean(1)
        for one, other in zip(generated, truth, strict=True)
    ]
    return torch.stack(layers).sum(0)
