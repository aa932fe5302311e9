"""How far what was generated is from the truth.

Each term is a frozen dataclass with a `weight` and a `name`; `build(resources)` gives the function of (fake, batch)
that computes it, once what it needs of the run (device, codec, colour statistics) is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from colortrain.lab import Batch, Codec
from colortrain.schedule import Schedule, constant

LossFunction = Callable[[Tensor, Batch], Tensor]


@dataclass(frozen=True)
class Resources:
    """What a run offers to its losses: its device and codec, and the training split's ab histogram when asked for.

    `generator`: the bare network that learns, for terms that ask more of it than colours.
    `histogram()`: float64 (23, 23), share of pixels in bins of 10 units of a (rows) and b, centres -110 ... 110.
    """

    device: torch.device
    codec: Codec
    histogram: Callable[[], np.ndarray]
    generator: nn.Module | None = None


@dataclass(frozen=True)
class L1:
    """Mean absolute difference in network units (nampouri equation 18, read as the L1 of ab, not of scores)."""

    weight: Schedule = constant(100.0)
    name: ClassVar[str] = "l1"

    def build(self, resources: Resources) -> LossFunction:
        """The function of (fake, batch)."""
        return lambda fake, batch: (fake - batch.colour).abs().mean()


@dataclass(frozen=True)
class L2:
    """Mean squared difference in network units (nazeri section 3.1)."""

    weight: Schedule = constant(1.0)
    name: ClassVar[str] = "l2"

    def build(self, resources: Resources) -> LossFunction:
        """The function of (fake, batch)."""
        return lambda fake, batch: (fake - batch.colour).square().mean()
