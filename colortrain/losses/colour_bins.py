"""Which colours of a grid are likely at each pixel: cross-entropy against the true one (Zhang et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from colortrain.lab import Batch
from colortrain.losses.reconstruction import LossFunction, Resources
from colortrain.models.residual_unet import SPACING, ResidualUNet, colours_in_gamut
from colortrain.schedule import Schedule, constant
from shards.errors import UserError

_LARGEST = 110


@dataclass(frozen=True)
class ColourBins:
    """Mean over pixels of the cross-entropy between the generator's logits and the true colour, in nats.

    The true colour is spread over the four points of the grid around it, bilinearly, so that their mean is exactly it
    (Zhang et al. spread it over the five nearest); a point out of gamut stands for its nearest one in gamut. Needs a
    generator with `logits`: a `ResidualUNet`.
    """

    weight: Schedule = constant(1.0)
    name: ClassVar[str] = "colour_bins"

    def build(self, resources: Resources) -> LossFunction:
        """The function of (fake, batch); raises `UserError` for a generator without logits."""
        generator = resources.generator
        if not isinstance(generator, ResidualUNet):
            raise UserError(
                "objective.reconstruction: colour_bins needs a generator that weighs colours: ResidualUNet"
            )
        lookup = nearest_in_gamut().to(resources.device)

        def measure(fake: Tensor, batch: Batch) -> Tensor:
            assert generator.logits is not None
            ab = resources.codec.decode(batch.L, batch.colour)[:, 1:]
            return cross_entropy(generator.logits, ab, lookup)

        return measure


def nearest_in_gamut() -> Tensor:
    """The number of the nearest colour in gamut for each point of the grid, a along its rows: int64 (23 * 23,)."""
    line = torch.arange(-_LARGEST, _LARGEST + 1, SPACING)
    grid = torch.cartesian_prod(line, line)
    return torch.cdist(grid, torch.from_numpy(colours_in_gamut())).argmin(dim=1)


def cross_entropy(logits: Tensor, ab: Tensor, lookup: Tensor) -> Tensor:
    """Of (B, Q, H, W) logits with ab (B, 2, H, W) in CIELAB units, in float32: one number."""
    side = int(2 * _LARGEST / SPACING) + 1
    place = (ab.float() + _LARGEST).clamp(0, 2 * _LARGEST) / SPACING
    low = place.floor().clamp(max=side - 2)
    share, low = place - low, low.long()
    chosen, weights = [], []
    for da in (0, 1):
        for db in (0, 1):
            chosen.append(lookup[(low[:, 0] + da) * side + low[:, 1] + db])
            weights.append(
                (share[:, 0] if da else 1 - share[:, 0]) * (share[:, 1] if db else 1 - share[:, 1])
            )
    logits = (
        logits.float()
    )  # one gather, and its four weights add up to 1: half the time of four from a log_softmax
    likely = (logits.gather(1, torch.stack(chosen, dim=1)) * torch.stack(weights, dim=1)).sum(dim=1)
    return (logits.logsumexp(dim=1) - likely).mean()
