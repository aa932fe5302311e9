"""L1 that counts rare colours more (drouilhet sections 1.3.3 and 2.1, after Zhang, Isola, Efros 2016, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from colortrain.lab import Batch, Codec
from colortrain.losses.reconstruction import LossFunction, Resources
from colortrain.schedule import Schedule, constant
from shards.inspect.statistics import BIN, CENTRES, EDGES

_COLOURS = 313  # Q: ab bins that Zhang et al. count in gamut


@dataclass(frozen=True)
class RebalancedL1:
    """Mean over pixels of w(true ab) * |difference|, the mean of a's and b's.

    The paper's formula adds a's and b's difference; its figures (.044 at the end, figure 1c, where grey costs about
    .5 * .096) are those of the mean. `mode`:

    - "literal": w = 1 / (p + eps), over its maximum, times `largest`, at least `least` (section 1.3.3). One empty
      bin makes the maximum 1 / eps, and every colour beyond 9 eps weighs `least`: this is half of plain L1.
    - "populated": the maximum over bins that occur. Colours 10 times as common as the rarest weigh `least` already,
      and photographs hold very rare ones: of 300 at 64 px, 0.007 % of the pixels weighed more (mean weight .50004).
    - "smoothed": Zhang's equation 4: p smoothed by a Gaussian of `sigma` ab units, mixed half with uniform; mean
      weight 1 over the smoothed p. `largest` and `least` have no part in it. Of the same photographs 26 % of the
      pixels weighed more than 1, at most 5.6: the mode that rebalances.
    """

    weight: Schedule = constant(70.0)
    mode: Literal["literal", "populated", "smoothed"] = "populated"
    largest: float = 5.0
    least: float = 0.5
    eps: float = 1e-8  # "a small constant", section 1.3.3
    sigma: float = 5.0
    mix: float = 0.5
    name: ClassVar[str] = "rebalanced_l1"

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.largest:
            raise ValueError(f"least must be in [0, largest], got {self.least} and {self.largest}")
        if self.eps <= 0 or self.sigma <= 0 or not 0 < self.mix <= 1:
            raise ValueError("eps and sigma must be above 0, mix in (0, 1]")

    def table(self, shares: np.ndarray) -> np.ndarray:
        """The weight of each bin, float64 (23, 23), for the shares of pixels in them."""
        if self.mode == "smoothed":
            smooth = smoothed(shares, self.sigma)
            weights = 1 / ((1 - self.mix) * smooth + self.mix / _COLOURS)
            return weights / (smooth * weights).sum()
        weights = 1 / (shares + self.eps)
        rarest = weights.max() if self.mode == "literal" else weights[shares > 0].max()
        return np.clip(weights / rarest * self.largest, self.least, self.largest)

    def build(self, resources: Resources) -> LossFunction:
        """The function of (fake, batch); counts the training split's colours."""
        weights = (
            torch.from_numpy(self.table(resources.histogram()))
            .float()
            .flatten()
            .to(resources.device)
        )

        def measure(fake: Tensor, batch: Batch) -> Tensor:
            chosen = weights[bins(batch, resources.codec)]
            return (chosen * (fake - batch.colour).abs().mean(dim=1)).mean()

        return measure


def bins(batch: Batch, codec: Codec) -> Tensor:
    """The bin of each true pixel, row * 23 + column in the table: (B, H, W) int64."""
    ab = codec.decode(batch.L, batch.colour)[:, 1:]
    # a hair up: a stored colour on an edge counts in the upper bin, and scaling there and back must not change that
    place = ((ab + 1e-3 - EDGES[0]) / BIN).floor().long().clamp(0, len(CENTRES) - 1)
    return place[:, 0] * len(CENTRES) + place[:, 1]


def smoothed(shares: np.ndarray, sigma: float) -> np.ndarray:
    """Shares (23, 23) spread by a Gaussian of `sigma` ab units; they still sum to what they did."""
    distance = np.subtract.outer(np.array(CENTRES), np.array(CENTRES)) / sigma
    kernel = np.exp(-0.5 * distance**2)
    kernel /= kernel.sum(0)  # what would leave the grid stays in it
    return kernel @ shares @ kernel.T
