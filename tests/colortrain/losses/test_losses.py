"""Losses against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from colortrain.lab import Batch, SymmetricCodec
from colortrain.losses.adversarial import BCE, LSGAN, Hinge, Wasserstein
from colortrain.losses.penalty import GradientPenalty, gradient_norms, penalty_terms
from colortrain.losses.reconstruction import L1, L2, Resources
from colortrain.schedule import Schedule, constant


def measured(term: L1 | L2, fake: torch.Tensor, real: torch.Tensor) -> float:
    resources = Resources(torch.device("cpu"), SymmetricCodec(), lambda: np.zeros((23, 23)))
    return term.build(resources)(fake, Batch(fake, real, fake)).item()


def scores(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_bce_at_zero_scores() -> None:
    """Undecided scores cost log 2 on each side; nampouri halves the critic's sum (equation 16)."""
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


def test_generator_moves_scores_up() -> None:
    fake = scores(-3.0).requires_grad_()
    BCE().generator(fake).backward()
    assert fake.grad is not None
    assert fake.grad.item() == pytest.approx(
        1 / (1 + math.exp(3)) - 1, rel=1e-6
    )  # sigmoid - 1: it does not vanish


def test_soft_labels_have_an_entropy_floor() -> None:
    """With label .8 the best score is logit(.8), and costs the entropy of a .8 coin (drouilhet's labels)."""
    best = scores(math.log(0.8 / 0.2))
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    loss = BCE(real_label=0.8, fake_label=0.2, critic_factor=1)
    assert loss.critic(best, -best).item() == pytest.approx(2 * entropy, rel=1e-6)
    assert loss.critic(best + 1, -best).item() > 2 * entropy


def test_reconstruction_terms() -> None:
    fake, real = torch.tensor([[0.0, 1], [-1, 0]]), torch.tensor([[0.5, 1], [1, 0]])
    assert measured(L1(), fake, real) == pytest.approx(2.5 / 4)
    assert measured(L2(), fake, real) == pytest.approx(4.25 / 4)


def test_least_squares_hinge_and_wasserstein() -> None:
    real, fake = scores(1.0, 0.0), scores(-1.0, 3.0)
    assert LSGAN().critic(real, fake).item() == pytest.approx(0.5 * (0.5 + 5))
    assert LSGAN().generator(fake).item() == pytest.approx(0.5 * (4 + 4) / 2)
    assert Hinge().critic(real, fake).item() == pytest.approx(0.5 + 2)
    assert (
        Hinge().generator(fake).item() == Wasserstein().generator(fake).item() == pytest.approx(-1)
    )
    assert Wasserstein().critic(real, fake).item() == pytest.approx(0.5)


def pictures(batch: int = 3, size: int = 4) -> tuple[Batch, torch.Tensor]:
    torch.manual_seed(0)
    L, colour, fake = (torch.randn(batch, c, size, size, dtype=torch.float64) for c in (1, 2, 2))
    return Batch(L, colour, torch.rand(batch, 1, 1, 1, dtype=torch.float64)), fake


@pytest.mark.parametrize(
    ("wrt", "norm"), [("colour", 2 * math.sqrt(32)), ("picture", math.sqrt(4 * 32 + 9 * 16))]
)
@pytest.mark.parametrize("points", ["interpolated", "real"])
def test_penalty_of_a_linear_critic(wrt: str, norm: float, points: str) -> None:
    """A critic 2 sum(colour) + 3 sum(L) has the same gradient everywhere."""
    batch, fake = pictures()

    def score(L: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        return 2 * colour.flatten(1).sum(1) + 3 * L.flatten(1).sum(1)

    norms = gradient_norms(score, batch, fake, points, wrt)
    assert norms.tolist() == pytest.approx([norm] * 3)
    penalty = GradientPenalty(constant(10), points, wrt, target=1)  # type: ignore[arg-type]
    assert penalty_terms([penalty], score, batch, fake, 0)["gp"].item() == pytest.approx(
        10 * (norm - 1) ** 2
    )


def test_points_of_the_penalty() -> None:
    """The critic sum(colour^2) / 2 has the point itself as its gradient: interpolated or real."""
    batch, fake = pictures()

    def score(L: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        return colour.square().flatten(1).sum(1) / 2

    mixed = batch.colour + batch.mix * (fake - batch.colour)
    for points, place in (("interpolated", mixed), ("real", batch.colour)):
        expected = place.flatten(1).norm(dim=1)
        torch.testing.assert_close(gradient_norms(score, batch, fake, points, "colour"), expected)


def test_a_map_of_scores_counts_as_its_mean() -> None:
    batch, fake = pictures()
    norms = gradient_norms(lambda L, colour: 5 * colour, batch, fake, "real", "colour")
    assert norms.tolist() == pytest.approx([5 * math.sqrt(32) / 32] * 3)


def test_arun_penalties_are_least_at_norm_one_half() -> None:
    """10 (g - 1)^2 + 10 g^2 has its minimum, 5, at g = 1/2 (arun equations 3-5)."""
    batch, fake = pictures()
    both = [GradientPenalty(target=1), GradientPenalty(target=0)]

    def total(norm: float) -> float:
        terms = penalty_terms(
            both, lambda L, colour: norm * colour.flatten(1).sum(1) / math.sqrt(32), batch, fake, 0
        )
        return sum(term.item() for term in terms.values())

    assert total(0.5) == pytest.approx(5)
    assert total(0.45) > 5 < total(0.55)
    assert total(1) == pytest.approx(10)


def test_penalty_trains_the_critic_and_its_weight_follows_the_epoch() -> None:
    batch, fake = pictures()
    slope = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    penalty = GradientPenalty(Schedule(((0, 0), (2, 1))), "real", "colour", target=0)

    def score(L: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        return slope * colour.flatten(1).sum(1)

    assert penalty_terms([penalty], score, batch, fake, 1)["r1"].item() == 0
    penalty_terms([penalty], score, batch, fake, 2)["r1"].backward()
    assert slope.grad is not None
    assert slope.grad.item() == pytest.approx(2 * 3 * 32)


def test_a_flat_critic_has_a_finite_penalty_gradient() -> None:
    batch, fake = pictures()
    slope = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    penalty_terms(
        [GradientPenalty()], lambda L, colour: slope * colour.flatten(1).sum(1), batch, fake, 0
    )["gp"].backward()
    assert slope.grad is not None
    assert slope.grad.isfinite()
