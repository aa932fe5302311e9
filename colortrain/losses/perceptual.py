"""The perceptual loss: the difference between the VGG-16 feature maps of two images."""

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
    """Mean squared difference of VGG-16 features of generated and true RGB images.

    (Drouilhet and L'Herminé, equation 6.) It is summed over the layers relu1_2, relu2_2
    and relu3_3. `weights` is "imagenet", the path of a file in torchvision's layout, or
    "random".
    """

    # Section 9.3 calls equation 6 a Euclidean distance, but it is squared: the equation
    # is followed. VGG-16's inputs have ImageNet's mean and deviation, which is not
    # given.
    weight: Schedule = constant(100.0)
    # "random" is for tests and for machines without the file
    weights: str = "imagenet"

    @property
    def name(self) -> str:
        """The loss's name in logs: "vgg", or "vgg_random" with random weights."""
        return "vgg_random" if self.weights == "random" else "vgg"

    def build(self, context: LossContext) -> LossFunction:
        """Return the loss function: (generated colours, batch) -> scalar tensor.

        Raises UserError if the weights of VGG-16 cannot be loaded.
        """
        # the last ReLU of each of the first three blocks; the paper says "ReLU layers
        # of the first few blocks"
        network = load_vgg16(self.weights, _ALTERNATIVE).to(context.device)

        def loss(fake: Tensor, batch: Batch) -> Tensor:
            def features(colour: Tensor) -> list[Tensor]:
                # colours outside sRGB are clipped; their gradient is zero
                rgb = lab_to_rgb(context.codec.decode(batch.L, colour))
                with context.autocast():  # the network takes most of the loss's time
                    maps = network(rgb)
                return [each.to(torch.promote_types(each.dtype, torch.float32)) for each in maps]

            with torch.no_grad():
                truth = features(batch.colour)
            return feature_distance(features(fake), truth).mean()

        return loss
