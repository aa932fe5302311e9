"""Cross-entropy between predicted and true colours of a grid (Zhang et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from colortrain.lab import Batch
from colortrain.losses.reconstruction import LossContext, LossFunction
from colortrain.models.residual_unet import SPACING, ResidualUNet, colours_in_gamut
from colortrain.schedule import Schedule, constant
from shards.errors import UserError

_LARGEST = 110  # largest |a| and |b| on the grid


@dataclass(frozen=True)
class ColourBins:
    """Mean over pixels of the cross-entropy of the generator's logits, in nats.

    The true colour is distributed bilinearly over the four grid points around it, so
    that their weighted mean is exactly the true colour (Zhang et al. distribute it over
    the five nearest). A grid point out of gamut is replaced by the nearest one in
    gamut. The generator must provide `logits`: a `ResidualUNet`.
    """

    weight: Schedule = constant(1.0)
    name: ClassVar[str] = "colour_bins"

    def build(self, context: LossContext) -> LossFunction:
        """Return the function of (fake, batch) that computes the loss, a scalar.

        Raises `UserError` for a generator without logits.
        """
        generator = context.generator
        if not isinstance(generator, ResidualUNet):
            raise UserError(
                "objective.reconstruction: colour_bins needs a generator that predicts logits: "
                "use ResidualUNetConfig"
            )
        lookup = nearest_colour_in_gamut().to(context.device)

        def loss(fake: Tensor, batch: Batch) -> Tensor:
            assert generator.logits is not None
            ab = context.codec.decode(batch.L, batch.colour)[:, 1:]
            return cross_entropy(generator.logits, ab, lookup)

        return loss


def nearest_colour_in_gamut() -> Tensor:
    """Return the index of the nearest colour in gamut per grid point: int64 (23 * 23,).

    Grid points are in row-major order; a varies along the rows.
    """
    axis = torch.arange(-_LARGEST, _LARGEST + 1, SPACING)
    grid = torch.cartesian_prod(axis, axis)
    return torch.cdist(grid, torch.from_numpy(colours_in_gamut())).argmin(dim=1)


def cross_entropy(logits: Tensor, ab: Tensor, lookup: Tensor) -> Tensor:
    """Return the mean cross-entropy, a scalar, computed in float32.

    logits: (B, Q, H, W); ab: (B, 2, H, W) in CIELAB units; lookup: (23 * 23,) int64,
    the result of `nearest_colour_in_gamut`.
    """
    side = int(2 * _LARGEST / SPACING) + 1
    position = (ab.float() + _LARGEST).clamp(0, 2 * _LARGEST) / SPACING
    low = position.floor().clamp(max=side - 2)
    fraction, low = position - low, low.long()
    colours, weights = [], []
    for da in (0, 1):
        for db in (0, 1):
            colours.append(lookup[(low[:, 0] + da) * side + low[:, 1] + db])
            weights.append(
                (fraction[:, 0] if da else 1 - fraction[:, 0])
                * (fraction[:, 1] if db else 1 - fraction[:, 1])
            )
    # the four weights sum to 1, so one gather on the logits is enough: half the
    # time of four gathers on a log_softmax
    logits = logits.float()
    target_logits = (
        logits.gather(1, torch.stack(colours, dim=1)) * torch.stack(weights, dim=1)
    ).sum(dim=1)
    return (logits.logsumexp(dim=1) - target_logits).mean()
