"""Gradient penalties against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from colortrain.lab import Batch
from colortrain.losses.penalty import GradientPenalty, gradient_norms, penalty_terms
from colortrain.schedule import Schedule, constant


def random_batch(batch: int = 3, size: int = 4) -> tuple[Batch, torch.Tensor]:
    torch.manual_seed(0)
    L, colour, fake = (torch.randn(batch, c, size, size, dtype=torch.float64) for c in (1, 2, 2))
    return Batch(L, colour, torch.rand(batch, 1, 1, 1, dtype=torch.float64)), fake


@pytest.mark.parametrize(
    ("wrt", "norm"), [("colour", 2 * math.sqrt(32)), ("picture", math.sqrt(4 * 32 + 9 * 16))]
)
@pytest.mark.parametrize("points", ["interpolated", "real"])
def test_penalty_of_a_linear_critic(wrt: str, norm: float, points: str) -> None:
    """The critic 2 sum(colour) + 3 sum(L) has the same gradient everywhere."""
    batch, fake = random_batch()

    def score(L: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        return 2 * colour.flatten(1).sum(1) + 3 * L.flatten(1).sum(1)

    norms = gradient_norms(score, batch, fake, points, wrt)
    assert norms.tolist() == pytest.approx([norm] * 3)
    penalty = GradientPenalty(constant(10), points, wrt, target=1)  # type: ignore[arg-type]
    assert penalty_terms([penalty], score, batch, fake, 0)["gp"].item() == pytest.approx(
        10 * (norm - 1) ** 2
    )


def test_points_of_the_penalty() -> None:
    """The critic sum(colour^2) / 2 has the point itself as its gradient."""
    batch, fake = random_batch()

    def score(L: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        return colour.square().flatten(1).sum(1) / 2

    mixed = batch.colour + batch.mix * (fake - batch.colour)
    for points, point in (("interpolated", mixed), ("real", batch.colour)):
        expected = point.flatten(1).norm(dim=1)
        torch.testing.assert_close(gradient_norms(score, batch, fake, points, "colour"), expected)


def test_a_map_of_scores_is_averaged() -> None:
    batch, fake = random_batch()
    norms = gradient_norms(lambda L, colour: 5 * colour, batch, fake, "real", "colour")
    assert norms.tolist() == pytest.approx([5 * math.sqrt(32) / 32] * 3)


def test_arun_penalties_are_minimal_at_norm_one_half() -> None:
    """10 (g - 1)^2 + 10 g^2 has its minimum, 5, at g = 1/2 (arun equations 3-5)."""
    batch, fake = random_batch()
    both = [GradientPenalty(target=1), GradientPenalty(target=0)]

    def total(norm: float) -> float:
        terms = penalty_terms(
            both, lambda L, colour: norm * colour.flatten(1).sum(1) / math.sqrt(32), batch, fake, 0
        )
        return sum(term.item() for term in terms.values())

    assert total(0.5) == pytest.approx(5)
    assert total(0.45) > 5 < total(0.55)
    assert total(1) == pytest.approx(10)


def test_penalty_has_critic_gradients_and_a_scheduled_weight() -> None:
    """The weight is 0 in the first two epochs: there is no term at all."""
    batch, fake = random_batch()
    slope = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    penalty = GradientPenalty(Schedule(((0, 0), (2, 1))), "real", "colour", target=0)

    def score(L: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        return slope * colour.flatten(1).sum(1)

    assert penalty_terms([penalty], score, batch, fake, 1) == {}
    penalty_terms([penalty], score, batch, fake, 2)["r1"].backward()
    assert slope.grad is not None
    assert slope.grad.item() == pytest.approx(2 * 3 * 32)


def test_a_penalty_of_weight_0_is_not_computed() -> None:
    """The critic sum(sqrt(colour)) has an infinite gradient at 0; 0 times it is NaN."""
    batch, fake = random_batch()
    batch, calls = Batch(batch.L, torch.zeros_like(batch.colour), batch.mix), []

    def score(L: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        calls.append(colour)
        return colour.sqrt().flatten(1).sum(1)

    off, on = (GradientPenalty(constant(weight), points="real") for weight in (0, 1))
    assert penalty_terms([off], score, batch, fake, 0) == {}
    assert not calls
    assert penalty_terms([on], score, batch, fake, 0)["gp"].isinf()
    other = GradientPenalty(constant(3), points="interpolated", target=0)
    linear = penalty_terms([off, other], lambda L, colour: 2 * colour, batch, fake, 0)
    assert {name: term.item() for name, term in linear.items()} == {
        "r1": pytest.approx(3 * 2**2 / 32)
    }


def test_a_constant_critic_has_a_finite_penalty_gradient() -> None:
    batch, fake = random_batch()
    slope = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    penalty_terms(
        [GradientPenalty()], lambda L, colour: slope * colour.flatten(1).sum(1), batch, fake, 0
    )["gp"].backward()
    assert slope.grad is not None
    assert slope.grad.isfinite()


def test_the_gradient_may_be_of_the_sum_over_patches() -> None:
    """A critic with 2 x 2 patches of 2x2 pixels, which do not overlap."""
    batch, fake = random_batch()
    kernel = torch.tensor([[1.0, 2], [3, 4]], dtype=torch.float64).expand(1, 2, 2, 2)

    def score(L: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(colour, kernel, stride=2)  # 2 x 2 patches

    expected = math.sqrt(2 * 4 * (1 + 4 + 9 + 16))  # every weight at 4 places in 2 channels
    both = [GradientPenalty(target=1), GradientPenalty(target=0, patches="sum")]
    for penalty, norm in zip(both, (expected / 4, expected), strict=True):
        norms = gradient_norms(score, batch, fake, "interpolated", "colour", penalty.patches)
        assert norms.tolist() == pytest.approx([norm] * 3)
    terms = penalty_terms(both, score, batch, fake, 0)  # they do not share a gradient
    assert terms["gp"].item() == pytest.approx(10 * (expected / 4 - 1) ** 2)
    assert terms["r1"].item() == pytest.approx(10 * expected**2)


def test_one_score_has_the_same_penalty_as_mean_and_as_sum() -> None:
    batch, fake = random_batch()
    mean, total = (
        gradient_norms(lambda L, colour: colour.square().sum((1, 2, 3)), batch, fake, *rest)
        for rest in (("real", "colour"), ("real", "colour", "sum"))
    )
    assert torch.equal(mean, total)
