"""An L1 loss that gives rare colours a higher weight.

(Drouilhet and L'Herminé, sections 1.3.3 and 2.1; Zhang, Isola and Efros 2016, section
2.2.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from colortrain.lab import Batch, Codec
from colortrain.losses.reconstruction import LossContext, LossFunction
from colortrain.schedule import Schedule, constant
from shards.inspect.statistics import BIN, CENTRES, EDGES

_COLOURS = 313  # Q: number of ab bins that Zhang et al. count as in gamut


@dataclass(frozen=True)
class RebalancedL1:
    """Mean over pixels of w * |difference|, where w is higher for rare colours.

    |difference| is averaged over a and b, or added if `channels` is "sum". w depends on
    p, the fraction of the training pixels that are in the same bin of the ab plane,
    counted in at most 20,000 images. `mode` says how:

    - "literal": w is 1 / (p + eps), divided by its maximum over all bins and multiplied
      by `largest`, but at least `least` (section 1.3.3).
    - "populated": the same, with the maximum over bins that occur in the training data.
    - "smoothed": w is 1 / p, where p is smoothed by a Gaussian of `sigma` ab units and
      mixed with a uniform distribution of weight `mix` (Zhang et al., equation 4). w is
      scaled to a mean of 1.
    """

    weight: Schedule = constant(70.0)
    # The number of bins is not given (section 2.1: N x N). Here they are 10 units wide,
    # 23 per axis, as in Zhang et al.
    mode: Literal["literal", "populated", "smoothed"] = "populated"
    largest: float = 5.0
    least: float = 0.5
    eps: float = 1e-8  # "a small constant", section 1.3.3
    sigma: float = 5.0
    mix: float = 0.5
    # Section 1.3.3 adds the differences of a and of b. What the paper reports of its
    # GAN fits the mean (a weighted L1 of 0.044 at the end of figure 1c), except for its
    # first epoch, which fits neither. What it reports of its WGAN fits the sum: see
    # `drouilhet_wgan_gp`.
    channels: Literal["mean", "sum"] = "mean"
    name: ClassVar[str] = "rebalanced_l1"

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.largest:
            raise ValueError(f"least must be in [0, largest], got {self.least} and {self.largest}")
        if self.eps <= 0 or self.sigma <= 0 or not 0 < self.mix <= 1:
            raise ValueError(
                "eps and sigma must be above 0 and mix in (0, 1], "
                f"got {self.eps}, {self.sigma} and {self.mix}"
            )

    def bin_weights(self, fractions: np.ndarray) -> np.ndarray:
        """Return the weight of each bin of the ab plane, (23, 23) float64.

        fractions: (23, 23) float64, the fraction of the training pixels in each bin.
        """
        if self.mode == "smoothed":
            # in the photographs of the comment below, 26 % of the pixels have a weight
            # above 1, at most 5.6: only this mode really rebalances
            smooth = smooth_histogram(fractions, self.sigma)
            weights = 1 / ((1 - self.mix) * smooth + self.mix / _COLOURS)
            return weights / (smooth * weights).sum()
        # "literal": if one bin is empty, the maximum is 1 / eps. With the defaults,
        # every colour with p above 9 eps then has the weight 0.5, and the loss is half
        # of plain L1. "populated": a colour 10 times as common as the rarest one
        # already has the weight `least`. In 300 photographs of 64 px, only 0.007 % of
        # the pixels have a higher weight (the mean is 0.50004).
        weights = 1 / (fractions + self.eps)
        rarest = weights.max() if self.mode == "literal" else weights[fractions > 0].max()
        return np.clip(weights / rarest * self.largest, self.least, self.largest)

    def build(self, context: LossContext) -> LossFunction:
        """Return the loss function: (generated colours, batch) -> scalar tensor.

        It reads training samples to count how common their colours are.
        """
        weights = (
            torch.from_numpy(self.bin_weights(context.histogram()))
            .float()
            .flatten()
            .to(context.device)
        )

        def loss(fake: Tensor, batch: Batch) -> Tensor:
            pixel_weights = weights[bin_indices(batch, context.codec)]
            difference = (fake - batch.colour).abs()
            per_pixel = difference.sum(1) if self.channels == "sum" else difference.mean(1)
            return (pixel_weights * per_pixel).mean()

        return loss


def bin_indices(batch: Batch, codec: Codec) -> Tensor:
    """Return, for each pixel's true colour, the index of its bin in the ab plane.

    The result is int64 (B, H, W). An index is 23 * (bin of a) + (bin of b).
    """
    ab = codec.decode_ab(batch.colour)
    # + 1e-3: a colour on an edge belongs to the upper bin, despite rounding errors
    position = ((ab + 1e-3 - EDGES[0]) / BIN).floor().long().clamp(0, len(CENTRES) - 1)
    return position[:, 0] * len(CENTRES) + position[:, 1]


def smooth_histogram(fractions: np.ndarray, sigma: float) -> np.ndarray:
    """Return a smoothed copy of a histogram of colours over a and b, (23, 23).

    fractions: (23, 23) float64, the fraction of pixels in each bin. It is smoothed by a
    Gaussian of `sigma` CIELAB units. The sum stays the same.
    """
    distance = np.subtract.outer(np.array(CENTRES), np.array(CENTRES)) / sigma
    kernel = np.exp(-0.5 * distance**2)
    kernel /= kernel.sum(0)  # so that the border of the grid loses no weight
    return kernel @ fractions @ kernel.T
