"""Adversarial losses of generator and critic, computed from the critic's scores.

The scores are logits and may have any shape. `real` are the scores of true colours,
`fake` those of generated ones. Every method returns a scalar, a mean over all scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class BCE:
    """Binary cross-entropy on the critic's scores, with optional soft labels.

    (Nampouri et al., equations 14-17; Nazeri et al., equations 5-8.) Labels can
    be soft for real images only (`real_label=0.9`: Nazeri et al., section 3.3) or
    for real and fake ones (0.8 and 0.2: Drouilhet and L'Herminé, section 3.2). The
    generator's target is always 1 (the non-saturating loss). `critic_factor` multiplies
    the critic's loss; in Nampouri et al. it is one half (equation 16).
    """

    real_label: float = 1.0
    fake_label: float = 0.0
    critic_factor: float = 1.0

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the cross-entropy of the real scores plus that of the fake scores.

        The target of real scores is `real_label`, that of fake scores `fake_label`. The
        sum is multiplied by `critic_factor`.
        """
        return self.critic_factor * (_bce(real, self.real_label) + _bce(fake, self.fake_label))

    def generator(self, fake: Tensor) -> Tensor:
        """Return the cross-entropy of the fake scores with label 1."""
        return _bce(fake, 1.0)


@dataclass(frozen=True)
class LSGAN:
    """Least-squares loss: scores should be 1 for real and 0 for generated colours.

    (Mao et al. 2017, equation 9.)
    """

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return half the sum of the means of (real - 1)^2 and of fake^2."""
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())

    def generator(self, fake: Tensor) -> Tensor:
        """Return half the mean of (fake - 1)^2."""
        return 0.5 * (fake - 1).square().mean()


@dataclass(frozen=True)
class Wasserstein:
    """Wasserstein loss: the difference between mean scores of real and fake images.

    It requires a gradient penalty, which keeps the critic Lipschitz continuous
    (Arjovsky et al. 2017; Arun, equation 2).
    """

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the mean score of fake images minus that of real images."""
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Return minus the mean score of the fake images."""
        return -fake.mean()


@dataclass(frozen=True)
class Hinge:
    """Hinge loss: real scores above 1 and fake scores below -1 cost the critic nothing.

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
