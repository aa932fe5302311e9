"""Adversarial losses against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from colortrain.losses.adversarial import BCE, LSGAN, Hinge, Wasserstein


def scores(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_bce_at_zero_scores() -> None:
    """Undecided scores cost log 2 on each side (nampouri halves it, equation 16)."""
    assert BCE(critic_factor=0.5).critic(scores(0), scores(0)).item() == pytest.approx(
        math.log(2), rel=1e-6
    )
    assert BCE(critic_factor=1).critic(scores(0), scores(0)).item() == pytest.approx(
        2 * math.log(2), rel=1e-6
    )
    assert BCE().generator(scores(0, 0)).item() == pytest.approx(math.log(2), rel=1e-6)


def test_bce_is_minus_log_of_the_sigmoid() -> None:
    s = 1.7
    right = -math.log(1 / (1 + math.exp(-s)))
    wrong = -math.log(1 - 1 / (1 + math.exp(-s)))
    assert BCE(critic_factor=1).critic(scores(s), scores(s)).item() == pytest.approx(
        right + wrong, rel=1e-6
    )
    assert BCE().generator(scores(s)).item() == pytest.approx(right, rel=1e-6)


def test_generator_gradient_does_not_vanish() -> None:
    fake = scores(-3.0).requires_grad_()
    BCE().generator(fake).backward()
    assert fake.grad is not None
    assert fake.grad.item() == pytest.approx(
        1 / (1 + math.exp(3)) - 1, rel=1e-6
    )  # sigmoid - 1: it does not vanish


def test_soft_labels_have_the_entropy_as_minimum() -> None:
    """With label 0.8 the best score is logit(0.8); its loss is the label's entropy.

    (Drouilhet's labels.)
    """
    best = scores(math.log(0.8 / 0.2))
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    loss = BCE(real_label=0.8, fake_label=0.2, critic_factor=1)
    assert loss.critic(best, -best).item() == pytest.approx(2 * entropy, rel=1e-6)
    assert loss.critic(best + 1, -best).item() > 2 * entropy


def test_least_squares_hinge_and_wasserstein() -> None:
    real, fake = scores(1.0, 0.0), scores(-1.0, 3.0)
    assert LSGAN().critic(real, fake).item() == pytest.approx(0.5 * (0.5 + 5))
    assert LSGAN().generator(fake).item() == pytest.approx(0.5 * (4 + 4) / 2)
    assert Hinge().critic(real, fake).item() == pytest.approx(0.5 + 2)
    assert (
        Hinge().generator(fake).item() == Wasserstein().generator(fake).item() == pytest.approx(-1)
    )
    assert Wasserstein().critic(real, fake).item() == pytest.approx(0.5)
