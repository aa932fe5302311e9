"""Losses that correspond to metrics of whole images.

`ColourfulnessGap` is about the colourfulness of a batch, `LogError` about the error in
decibels, and `SoftAccuracy` about the fraction of accurate pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from colortrain.lab import Batch, lab_to_rgb
from colortrain.losses.reconstruction import LossContext, LossFunction
from colortrain.schedule import Schedule, constant

_SMALL = 1e-2  # on the squared scale of 0..255: sqrt has an infinite gradient at 0
_AB_RANGE = 220.0  # of a and of b
_FLOOR = 1e-4  # mean squared error at 40 dB; smaller errors matter little


@dataclass(frozen=True)
class ColourfulnessGap:
    """Squared difference between the colourfulness of generated and of true images.

    The loss is ((g - share * t) / 100)^2. g and t are the mean colourfulness of
    generated and of true images (M3 of Hasler and Süsstrunk), after averaging cells of
    `cell` x `cell` pixels. Raises ValueError for values out of range.
    """

    weight: Schedule = constant(1.0)
    # with 1 pixel, the network minimises the loss by drawing a neon line along an edge
    # of every image, unless other losses prevent that (docs/LOG.md)
    cell: int = 4  # pixels
    # DDColor (Kang et al. 2023) rewards M3 without a limit; this loss is lowest at
    # `share`
    share: float = 1.0  # target, as a fraction of the true colourfulness
    name: ClassVar[str] = "colourfulness_gap"

    def __post_init__(self) -> None:
        if self.cell < 1:
            raise ValueError(f"cell must be at least 1 pixel, got {self.cell}")
        if self.share < 0:
            raise ValueError(f"share must not be negative, got {self.share}")

    def build(self, context: LossContext) -> LossFunction:
        """Return the loss function: (generated colours, batch) -> scalar tensor."""

        def mean_colourfulness(batch: Batch, colour: Tensor) -> Tensor:
            return differentiable_colourfulness(
                lab_to_rgb(F.avg_pool2d(_to_lab(context, batch, colour), self.cell))
            ).mean()

        def loss(fake: Tensor, batch: Batch) -> Tensor:
            return (
                (
                    mean_colourfulness(batch, fake)
                    - self.share * mean_colourfulness(batch, batch.colour)
                )
                / 100
            ).square()

        return loss


@dataclass(frozen=True)
class LogError:
    """Mean over images of ln(mean squared RGB error + 1e-4).

    If it rises by 1, PSNR falls by 4.34 dB.
    """

    weight: Schedule = constant(0.01)
    name: ClassVar[str] = "log_error"

    def build(self, context: LossContext) -> LossFunction:
        """Return the loss function: (generated colours, batch) -> scalar tensor."""

        def loss(fake: Tensor, batch: Batch) -> Tensor:
            generated, truth = (
                lab_to_rgb(_to_lab(context, batch, colour)) for colour in (fake, batch.colour)
            )
            # As in PSNR, an error costs much in an image that is otherwise nearly
            # right, and little in one that is far from the truth. So the network adds
            # colour mainly to images that are far from the truth anyway.
            return ((generated - truth).square().mean(dim=(1, 2, 3)) + _FLOOR).log().mean()

        return loss


@dataclass(frozen=True)
class SoftAccuracy:
    """1 minus the fraction of nearly correct pixels, made differentiable: in [0, 1].

    In a nearly correct pixel, a and b differ from the truth by at most a percentage of
    their range of 220. The fraction is averaged over the percentages in `percents`.
    Raises ValueError for values out of range.
    """

    weight: Schedule = constant(1.0)
    # those of Nazeri et al.
    percents: tuple[float, ...] = (2.0, 5.0)
    name: ClassVar[str] = "soft_accuracy"

    def __post_init__(self) -> None:
        if not self.percents or min(self.percents) <= 0:
            raise ValueError(f"percents must be one or more values above 0, got {self.percents}")

    def build(self, context: LossContext) -> LossFunction:
        """Return the loss function: (generated colours, batch) -> scalar tensor."""

        def loss(fake: Tensor, batch: Batch) -> Tensor:
            generated, truth = (
                context.codec.decode_ab(colour).float() for colour in (fake, batch.colour)
            )
            difference = (generated - truth).abs()
            limits = [_AB_RANGE * percent / 100 for percent in self.percents]
            # Instead of 0 or 1, a pixel counts as sigmoid((limit - |difference|) /
            # (limit / 4)), multiplied over a and b. So the network concentrates colour
            # where it is certain.
            correct = [
                torch.sigmoid(4 - 4 * difference / limit).prod(dim=1).mean() for limit in limits
            ]
            return 1 - torch.stack(correct).mean()

        return loss


def differentiable_colourfulness(rgb: Tensor) -> Tensor:
    """Return the colourfulness M3 (B,) of RGB images (B, 3, H, W) in [0, 1].

    Its gradient is finite for grayscale images too.
    """
    red, green, blue = (255 * rgb).flatten(2).unbind(1)
    opponent = torch.stack([red - green, (red + green) / 2 - blue])
    spread = (opponent.var(dim=-1, correction=0).sum(0) + _SMALL).sqrt()
    return spread + 0.3 * (opponent.mean(dim=-1).square().sum(0) + _SMALL).sqrt()


def _to_lab(context: LossContext, batch: Batch, colour: Tensor) -> Tensor:
    """Return Lab images (B, 3, H, W) with the batch's true L and the colours `colour`.

    colour: (B, C, H, W), scaled by the codec. The result is float32 in CIELAB units.
    """
    codec = context.codec
    true_L = codec.decode_lightness(batch.L, batch.colour)
    return torch.cat([true_L.float(), codec.decode_ab(colour).float()], dim=1)
