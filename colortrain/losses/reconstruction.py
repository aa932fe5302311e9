"""How far the generated ab is from the true one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from colortrain.schedule import Schedule, constant


@dataclass(frozen=True)
class L1:
    """Mean absolute difference of ab in network units (nampouri equation 18, read as the L1 of ab, not of scores)."""

    weight: Schedule = constant(100.0)
    name: ClassVar[str] = "l1"

    def __call__(self, fake: Tensor, real: Tensor) -> Tensor:
        return (fake - real).abs().mean()
