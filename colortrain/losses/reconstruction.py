"""Reconstruction losses: how far generated colours are from the true ones.

Each loss is a frozen dataclass with a `weight` and a `name`. Its method
`build(context)` returns a function of (fake, batch) that computes the loss, where
`fake` are the generated colours, (B, C, H, W), scaled by the codec.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from colortrain.lab import Batch, Codec
from colortrain.schedule import Schedule, constant

LossFunction = Callable[[Tensor, Batch], Tensor]


@dataclass(frozen=True)
class LossContext:
    """What a reconstruction loss may use of the run: device, codec, data, generator.

    `histogram()` returns (23, 23) float64: the fraction of the training pixels in bins
    of 10 units of a (rows) and b (columns), with centres -110 ... 110. `generator` is
    the generator without its DDP wrapper. `autocast()` is a context manager for the
    run's mixed precision.
    """

    device: torch.device
    codec: Codec
    histogram: Callable[[], np.ndarray]
    generator: nn.Module | None = None
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class L1:
    """Mean absolute difference of generated and true colours, as the codec scales them.

    (Nampouri et al., equation 18.) The differences are averaged over images and pixels.
    `channels` says whether over a and b (and L, if it is generated) they are averaged
    too, or added.
    """

    weight: Schedule = constant(100.0)
    # papers write an L1 norm, whose value is the sum over channels (Arun, equation 6;
    # Valentini and Nagaro Quiroz, equation 2); their code is probably torch's L1Loss,
    # which averages
    channels: Literal["mean", "sum"] = "mean"
    name: ClassVar[str] = "l1"

    def build(self, context: LossContext) -> LossFunction:
        """Return the loss function: (generated colours, batch) -> scalar tensor."""
        # the equation takes the L1 of critic scores, interpreted as the L1 of ab
        if self.channels == "sum":
            return lambda fake, batch: (fake - batch.colour).abs().sum(1).mean()
        return lambda fake, batch: (fake - batch.colour).abs().mean()


@dataclass(frozen=True)
class L2:
    """Mean squared difference of generated and true colours, as the codec scales them.

    (Nazeri et al., section 3.1.)
    """

    weight: Schedule = constant(1.0)
    name: ClassVar[str] = "l2"

    def build(self, context: LossContext) -> LossFunction:
        """Return the loss function: (generated colours, batch) -> scalar tensor."""
        return lambda fake, batch: (fake - batch.colour).square().mean()
