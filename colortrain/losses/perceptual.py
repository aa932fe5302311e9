"""Distance of feature maps of a network that has learned to see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from colortrain.lab import Batch, lab_to_rgb
from colortrain.losses.reconstruction import LossFunction, Resources
from colortrain.models.vgg16 import feature_distance, load_vgg16
from colortrain.schedule import Schedule, constant

_WITHOUT = "--set objective.reconstruction.0.weights=random (a stand-in that has learned nothing)"


@dataclass(frozen=True)
class Perceptual:
    """Mean squared difference of VGG-16's relu1_2, relu2_2 and relu3_3 on RGB, summed (drouilhet equation 6).

    The paper says "ReLU layers of the first few blocks": the last of the first three. `weights`: "imagenet", the path
    of a file in torchvision's layout, or "random" (for tests and machines without weights; logs then say so).
    Colours outside sRGB are clipped and feel no slope.
    """

    weight: Schedule = constant(100.0)
    weights: str = "imagenet"

    @property
    def name(self) -> str:
        """What logs call it."""
        return "vgg_random" if self.weights == "random" else "vgg"

    def build(self, resources: Resources) -> LossFunction:
        """The function of (fake, batch); raises `UserError` if the weights cannot be had."""
        network = load_vgg16(self.weights, _WITHOUT).to(resources.device)

        def measure(fake: Tensor, batch: Batch) -> Tensor:
            def features(colour: Tensor) -> list[Tensor]:
                return network(lab_to_rgb(resources.codec.decode(batch.L, colour)))

            with torch.no_grad():
                truth = features(batch.colour)
            return feature_distance(features(fake), truth).mean()

        return measure
