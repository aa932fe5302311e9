"""Adversarial losses of generator and critic, from critic scores of any shape.

The scores are logits. Every method returns a scalar, a mean over all scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class BCE:
    """Binary cross-entropy on logits, non-saturating.

    (nampouri equations 14-17; nazeri equations 5-8.) Soft labels are one-sided
    (`real_label=0.9`, nazeri section 3.3) or two-sided (0.8 and 0.2, drouilhet section
    3.2); the generator's target is always 1. `critic_factor` is nampouri's factor of
    one half (equation 16).
    """

    real_label: float = 1.0
    fake_label: float = 0.0
    critic_factor: float = 1.0

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return `critic_factor` times the sum of the two cross-entropies."""
        return self.critic_factor * (_bce(real, self.real_label) + _bce(fake, self.fake_label))

    def generator(self, fake: Tensor) -> Tensor:
        """Return the cross-entropy of the fake scores with label 1."""
        return _bce(fake, 1.0)


@dataclass(frozen=True)
class LSGAN:
    """Least squares against labels 1 and 0 (Mao et al. 2017, equation 9)."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return half the sum of the two mean squared distances from the labels."""
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())

    def generator(self, fake: Tensor) -> Tensor:
        """Return half the mean squared distance of the fake scores from 1."""
        return 0.5 * (fake - 1).square().mean()


@dataclass(frozen=True)
class Wasserstein:
    """Wasserstein loss: mean scores.

    A gradient penalty must keep the critic Lipschitz continuous (Arjovsky et al. 2017;
    arun equation 2).
    """

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the mean score of fake images minus that of real images."""
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Return minus the mean score of the fake images."""
        return -fake.mean()


@dataclass(frozen=True)
class Hinge:
    """Hinge loss: scores beyond the margin cost nothing.

    (Lim and Ye 2017; Miyato et al. 2018, equations 16-17.)
    """

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the mean of max(0, 1 - real) plus the mean of max(0, 1 + fake)."""
        return (1 - real).relu().mean() + (1 + fake).relu().mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Return minus the mean score of the fake images."""
        return -fake.mean()


def _bce(scores: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, label))
