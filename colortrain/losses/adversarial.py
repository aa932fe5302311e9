"""Adversarial losses of generator and critic, computed from the critic's scores.

`real` are the scores of true colours and `fake` the scores of generated colours, both
logits of any shape. Every method returns a scalar, a mean over all scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class BCE:
    """Binary cross-entropy on the critic's scores, with optional soft labels.

    (Nampouri et al., equations 14-17; Nazeri et al., equations 5-8.) `critic_factor`
    multiplies the critic's loss.
    """

    # 0.9 in Nazeri et al. (section 3.3); 0.8, with a fake_label of 0.2, in Drouilhet
    # and L'Herminé (section 3.2)
    real_label: float = 1.0
    fake_label: float = 0.0
    # 0.5 in Nampouri et al. (equation 16)
    critic_factor: float = 1.0

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the summed cross-entropies of real and fake scores, scaled.

        The scale is `critic_factor`. The target of real scores is `real_label`, and the
        target of fake scores is `fake_label`.
        """
        return self.critic_factor * (_bce(real, self.real_label) + _bce(fake, self.fake_label))

    def generator(self, fake: Tensor) -> Tensor:
        """Return the cross-entropy of the fake scores with label 1."""
        # the non-saturating loss; this label is never soft
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

    It requires a gradient penalty (Arjovsky et al. 2017; Arun, equation 2).
    """

    # the penalty keeps the critic Lipschitz continuous
    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the mean of the fake scores minus the mean of the real scores."""
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Return minus the mean of the fake scores."""
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
        """Return minus the mean of the fake scores."""
        return -fake.mean()


def _bce(scores: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, label))
