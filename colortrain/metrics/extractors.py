"""Networks that turn pictures into feature vectors, by name, and the distance of two pictures in VGG-16's eyes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from colortrain.models.vgg16 import VGG16Features, feature_distance, load_vgg16
from shards.errors import unknown

Extractor = Callable[[Tensor], Tensor]

_WITHOUT = "leave out what needs VGG-16"


def feature_extractor(name: str, path: str = "imagenet", device: torch.device | str = "cpu") -> Extractor:
    """The function of RGB (B, 3, H, W) in [0, 1] to features (B, D) that `name` stands for.

    "vgg16": relu3_3 averaged over the picture, D = 256, pictures as they are, not resized. `path`: "imagenet",
    "random" or a file in torchvision's layout. Raises `UserError` for an unknown name, or if weights cannot be had.
    """
    if name not in _EXTRACTORS:
        raise unknown("feature extractor", name, _EXTRACTORS)
    return _EXTRACTORS[name](path, torch.device(device))


def _vgg16(path: str, device: torch.device) -> Extractor:
    network = load_vgg16(path, _WITHOUT).to(device)

    @torch.no_grad()
    def extract(rgb: Tensor) -> Tensor:
        return network(rgb)[-1].mean(dim=(2, 3))

    return extract


_EXTRACTORS: dict[str, Callable[[str, torch.device], Extractor]] = {"vgg16": _vgg16}


@torch.no_grad()
def vgg_distance(network: VGG16Features, rgb: Tensor, truth: Tensor) -> Tensor:
    """Drouilhet's VGG metric (equation 6, section 12.1) of each picture: RGB (B, 3, H, W) in [0, 1], twice, to (B,)."""
    return feature_distance(network(rgb), network(truth))
