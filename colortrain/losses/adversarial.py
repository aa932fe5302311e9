"""The two sides of the adversarial game, on critic scores (logits) of any shape."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class BCE:
    """Binary cross-entropy on logits, the non-saturating game (nampouri equations 14-17; nazeri equations 5-8).

    Soft labels are one-sided (`real_label=.9`, nazeri section 3.3) or two-sided (.8 and .2, drouilhet section 3.2);
    the generator's own target is always 1. `critic_factor` is nampouri's one half (equation 16).
    """

    real_label: float = 1.0
    fake_label: float = 0.0
    critic_factor: float = 1.0

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the critic minimises: `critic_factor` times the sum of both cross-entropies."""
        return self.critic_factor * (_bce(real, self.real_label) + _bce(fake, self.fake_label))

    def generator(self, fake: Tensor) -> Tensor:
        """What the generator minimises: cross-entropy of its fakes against label 1."""
        return _bce(fake, 1.0)


@dataclass(frozen=True)
class LSGAN:
    """Least squares against labels 1 and 0 (Mao et al. 2017, equation 9)."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Half the sum of both mean squared distances."""
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())

    def generator(self, fake: Tensor) -> Tensor:
        """Half the mean squared distance of the fakes' scores from 1."""
        return 0.5 * (fake - 1).square().mean()


@dataclass(frozen=True)
class Wasserstein:
    """Mean scores, to be held in check by a gradient penalty (Arjovsky et al. 2017; arun equation 2)."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Mean score of fakes minus that of real pictures."""
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Minus the mean score of the fakes."""
        return -fake.mean()


@dataclass(frozen=True)
class Hinge:
    """Scores beyond the margin cost nothing (Lim and Ye 2017; Miyato et al. 2018, equations 16-17)."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """How far real scores stay below 1 and fake ones above -1."""
        return (1 - real).relu().mean() + (1 + fake).relu().mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Minus the mean score of the fakes."""
        return -fake.mean()


Adversarial = BCE | LSGAN | Wasserstein | Hinge


def _bce(scores: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, label))
