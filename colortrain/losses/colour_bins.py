"""A cross-entropy loss over the colours of a grid in the ab plane.

(Zhang et al. 2016.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from colortrain.lab import Batch
from colortrain.losses.reconstruction import LossContext, LossFunction
from colortrain.models.map_images import map_images
from colortrain.models.residual_unet import SPACING, ResidualUNet, colours_in_gamut
from colortrain.schedule import Schedule, constant
from shards.errors import UserError

_LARGEST = 110  # largest |a| and |b| on the grid


@dataclass(frozen=True)
class ColourBins:
    """Cross-entropy, in nats, between the generator's logits and a soft target.

    The logits are over grid points of the ab plane, 10 units apart. The target of a
    pixel spreads its true (a, b) over the four grid points around it. The generator
    must be a `ResidualUNet`.
    """

    weight: Schedule = constant(1.0)
    name: ClassVar[str] = "colour_bins"

    def build(self, context: LossContext) -> LossFunction:
        """Return the loss function: (generated colours, batch) -> scalar tensor.

        Raises UserError if the generator is not a `ResidualUNet`.
        """
        generator = context.generator
        if not isinstance(generator, ResidualUNet):
            raise UserError(
                "objective.reconstruction: colour_bins requires a generator that predicts logits: "
                "use ResidualUNetConfig"
            )
        lookup = nearest_colour_in_gamut().to(context.device)

        def loss(fake: Tensor, batch: Batch) -> Tensor:
            ab = context.codec.decode_ab(batch.colour)
            return cross_entropy(
                generator.take_logits(), ab, lookup, recompute=generator.recompute_logits
            )

        return loss


def nearest_colour_in_gamut() -> Tensor:
    """Return, for each point of the ab grid, the index of the nearest colour in gamut.

    The result is int64 (23 * 23,): for each of 23 values of a, 23 values of b. The
    indices are rows of `colours_in_gamut()`.
    """
    axis = torch.arange(-_LARGEST, _LARGEST + 1, SPACING)
    grid = torch.cartesian_prod(axis, axis)
    return torch.cdist(grid, torch.from_numpy(colours_in_gamut())).argmin(dim=1)


def cross_entropy(logits: Tensor, ab: Tensor, lookup: Tensor, *, recompute: bool = False) -> Tensor:
    """Return the mean cross-entropy of logits with the soft target of the true ab.

    logits: (B, Q, H, W), over the Q grid points in the sRGB gamut. ab: (B, 2, H, W) in
    CIELAB units. lookup: the tensor that `nearest_colour_in_gamut` returns. The result
    is a float32 scalar. recompute: see `map_images`.
    """
    return map_images(partial(_pixel_cross_entropy, lookup), logits, ab, recompute=recompute).mean()


def _pixel_cross_entropy(lookup: Tensor, logits: Tensor, ab: Tensor) -> Tensor:
    """Return the cross-entropy of each pixel, (B, H, W)."""
    side = int(2 * _LARGEST / SPACING) + 1
    position = (ab.float() + _LARGEST).clamp(0, 2 * _LARGEST) / SPACING
    low = position.floor().clamp(max=side - 2)
    fraction, low = position - low, low.long()
    # The weights are bilinear: the weighted mean of the four points is exactly the true
    # colour. Zhang et al. use the five nearest points. The weight of a point outside
    # the sRGB gamut goes to the nearest point inside.
    first = low[:, 0] * side + low[:, 1]
    points = torch.stack([first, first + 1, first + side, first + side + 1], dim=1)
    near_far = torch.stack([1 - fraction, fraction], dim=1)
    weights = (near_far[:, :, None, 0] * near_far[:, None, :, 1]).flatten(1, 2)
    # the four weights sum to 1, so one gather on the logits is enough: half the
    # time of four gathers on a log_softmax
    logits = logits.float()
    target_logits = (logits.gather(1, lookup[points]) * weights).sum(dim=1)
    return logits.logsumexp(dim=1) - target_logits
