"""Penalties on the critic's gradient, independent of the adversarial loss they stand beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from colortrain.lab import Batch
from colortrain.schedule import Schedule, constant

Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class GradientPenalty:
    """weight * mean of (|gradient| - target)^2: target 1 is WGAN-GP (Gulrajani et al. 2017, equation 3), 0 is R1
    (Mescheder et al. 2018, equation 9, without its one half).

    The gradient is that of a picture's mean score (so that a map of patch scores counts as the one number the losses
    use), at `interpolated` or `real` points, with respect to the `colour` alone or the `picture` (L too).
    """

    weight: Schedule = constant(10.0)
    points: Literal["interpolated", "real"] = "interpolated"
    wrt: Literal["colour", "picture"] = "colour"
    target: float = 1.0

    @property
    def name(self) -> str:
        """What logs call it: "gp", or "r1" where the target is 0."""
        return "gp" if self.target else "r1"


def gradient_norms(score: Score, batch: Batch, fake: Tensor, points: str, wrt: str) -> Tensor:
    """Norms (B,) of the gradient of each picture's mean score, differentiable in the critic's parameters."""
    mix = batch.mix if points == "interpolated" else torch.zeros_like(batch.mix)
    colour = torch.lerp(batch.colour, fake, mix.to(fake)).detach().requires_grad_()
    L = batch.L.detach().requires_grad_(wrt == "picture")
    mean_scores = score(L, colour).reshape(len(L), -1).mean(1)
    inputs = [L, colour] if wrt == "picture" else [colour]
    gradients = torch.autograd.grad(mean_scores.sum(), inputs, create_graph=True)
    squares = torch.stack([gradient.square().flatten(1).sum(1) for gradient in gradients]).sum(0)
    return (squares + 1e-16).sqrt()  # the root has no slope at 0


def penalty_terms(
    penalties: Sequence[GradientPenalty], score: Score, batch: Batch, fake: Tensor, epoch: float
) -> dict[str, Tensor]:
    """Every penalty, weighted, by name; penalties at the same points share one gradient (arun section II-E)."""
    norms: dict[tuple[str, str], Tensor] = {}
    terms = {}
    for penalty in penalties:
        place = (penalty.points, penalty.wrt)
        if place not in norms:
            norms[place] = gradient_norms(score, batch, fake, *place)
        terms[penalty.name] = (
            penalty.weight.at(epoch) * (norms[place] - penalty.target).square().mean()
        )
    return terms
