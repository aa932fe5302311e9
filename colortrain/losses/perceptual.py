"""The perceptual loss: distance between VGG-16 feature maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from colortrain.lab import Batch, lab_to_rgb
from colortrain.losses.reconstruction import LossContext, LossFunction
from colortrain.models.vgg16 import feature_distance, load_vgg16
from colortrain.schedule import Schedule, constant

_ALTERNATIVE = (
    "use --set objective.reconstruction.0.weights=random (a network that was never trained)"
)


@dataclass(frozen=True)
class Perceptual:
    """Mean squared difference of VGG-16's relu1_2, relu2_2 and relu3_3 on RGB, summed.

    (drouilhet equation 6.) The paper says "ReLU layers of the first few blocks": the
    last ReLU of the first three blocks is used. `weights` is "imagenet", the path of a
    file in torchvision's layout, or "random" (for tests and machines without weights;
    its name in logs is "vgg_random"). Colours outside sRGB are clipped; their gradient
    is zero.
    """

    weight: Schedule = constant(100.0)
    weights: str = "imagenet"

    @property
    def name(self) -> str:
        """The name in logs."""
        return "vgg_random" if self.weights == "random" else "vgg"

    def build(self, context: LossContext) -> LossFunction:
        """Return the function of (fake, batch) that computes the loss, a scalar.

        Raises `UserError` if the weights cannot be loaded.
        """
        network = load_vgg16(self.weights, _ALTERNATIVE).to(context.device)

        def loss(fake: Tensor, batch: Batch) -> Tensor:
            def features(colour: Tensor) -> list[Tensor]:
                return network(lab_to_rgb(context.codec.decode(batch.L, colour)))

            with torch.no_grad():
                truth = features(batch.colour)
            return feature_distance(features(fake), truth).mean()

        return loss
