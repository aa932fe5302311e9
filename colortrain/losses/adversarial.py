"""The two sides of the adversarial game, on critic scores (logits) of any shape."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class BCE:
    """Binary cross-entropy on logits, the non-saturating game (nampouri equations 14-17).

    `critic_factor` is nampouri's one half (equation 16), which slows the critic against the generator.
    """

    real_label: float = 1.0
    fake_label: float = 0.0
    critic_factor: float = 0.5

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the critic minimises: `critic_factor` times the sum of both cross-entropies."""
        return self.critic_factor * (_bce(real, self.real_label) + _bce(fake, self.fake_label))

    def generator(self, fake: Tensor) -> Tensor:
        """What the generator minimises: cross-entropy of its fakes against label 1."""
        return _bce(fake, 1.0)


def _bce(scores: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, label))
