"""What metrics see of whole pictures: how colourful a batch is, how far off in decibels, how many pixels are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from colortrain.lab import Batch, lab_to_rgb
from colortrain.losses.reconstruction import LossFunction, Resources
from colortrain.schedule import Schedule, constant

_SMALL = 1e-2  # squared levels of 255: the root has no slope at 0
_AB_RANGE = 220.0  # of a, and of b
_FLOOR = 1e-4  # mean squared error of 40 dB: closer than that nobody need come


@dataclass(frozen=True)
class ColourfulnessGap:
    """((mean M3 of what was made - share * mean M3 of the truth) / 100)^2 over the pictures that a process holds.

    M3 is Hasler and Süsstrunk's colourfulness (`metrics.image_metrics`), here of pictures whose `cell` x `cell`
    pixels are averaged first: of single pixels, and with nothing else to hold it, it is met by a neon line along an
    edge of every picture (docs/LOG.md). DDColor (Kang et al. 2023) rewards M3 without end; the gap ends
    at the truth.
    """

    weight: Schedule = constant(1.0)
    cell: int = 4  # pixels
    share: float = 1.0  # of the truth's colourfulness that is asked for
    name: ClassVar[str] = "colourfulness_gap"

    def __post_init__(self) -> None:
        if self.cell < 1:
            raise ValueError(f"cell must be at least 1 pixel, got {self.cell}")
        if self.share < 0:
            raise ValueError(f"share must not be negative, got {self.share}")

    def build(self, resources: Resources) -> LossFunction:
        """The function of (fake, batch)."""

        def mean_m3(batch: Batch, colour: Tensor) -> Tensor:
            return m3(lab_to_rgb(F.avg_pool2d(_shown(resources, batch, colour), self.cell))).mean()

        def measure(fake: Tensor, batch: Batch) -> Tensor:
            return (
                (mean_m3(batch, fake) - self.share * mean_m3(batch, batch.colour)) / 100
            ).square()

        return measure


@dataclass(frozen=True)
class LogError:
    """Mean over pictures of ln(mean squared difference of RGB + 1e-4): 4.34 dB of PSNR, less, for every 1 of it.

    As PSNR it asks most of pictures that are nearly right, so colour goes where a picture is off anyway.
    """

    weight: Schedule = constant(0.01)
    name: ClassVar[str] = "log_error"

    def build(self, resources: Resources) -> LossFunction:
        """The function of (fake, batch)."""

        def measure(fake: Tensor, batch: Batch) -> Tensor:
            made, truth = (
                lab_to_rgb(_shown(resources, batch, colour)) for colour in (fake, batch.colour)
            )
            return ((made - truth).square().mean(dim=(1, 2, 3)) + _FLOOR).log().mean()

        return measure


@dataclass(frozen=True)
class SoftAccuracy:
    """1 - a share of pixels that are nearly right, in [0, 1]; mean over the `percents`, nazeri's two.

    A pixel counts by the product over a and b of sigmoid((allowed - |difference|) / (allowed / 4)), where allowed is
    `percent` of a channel's range of 220 (`colortrain.metrics.accuracy`). It gathers colour where the network is sure.
    """

    weight: Schedule = constant(1.0)
    percents: tuple[float, ...] = (2.0, 5.0)
    name: ClassVar[str] = "soft_accuracy"

    def __post_init__(self) -> None:
        if not self.percents or min(self.percents) <= 0:
            raise ValueError(f"percents must be one or more above 0, got {self.percents}")

    def build(self, resources: Resources) -> LossFunction:
        """The function of (fake, batch)."""

        def measure(fake: Tensor, batch: Batch) -> Tensor:
            made, truth = (
                _shown(resources, batch, colour)[:, 1:] for colour in (fake, batch.colour)
            )
            off = (made - truth).abs()
            allowed = [_AB_RANGE * percent / 100 for percent in self.percents]
            right = [torch.sigmoid(4 - 4 * off / most).prod(dim=1).mean() for most in allowed]
            return 1 - torch.stack(right).mean()

        return measure


def m3(rgb: Tensor) -> Tensor:
    """Colourfulness of RGB (B, 3, H, W) in [0, 1], (B,): `metrics.images.colourfulness` with a slope at grey."""
    red, green, blue = (255 * rgb).flatten(2).unbind(1)
    opponent = torch.stack([red - green, (red + green) / 2 - blue])
    spread = (opponent.var(dim=-1, correction=0).sum(0) + _SMALL).sqrt()
    return spread + 0.3 * (opponent.mean(dim=-1).square().sum(0) + _SMALL).sqrt()


def _shown(resources: Resources, batch: Batch, colour: Tensor) -> Tensor:
    """The pictures that people would see, in CIELAB units and float32: generated colours under the true L."""
    truth = resources.codec.decode(batch.L, batch.colour).float()
    return torch.cat([truth[:, :1], resources.codec.decode(batch.L, colour).float()[:, -2:]], dim=1)
