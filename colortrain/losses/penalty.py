"""Penalties on the critic's gradient, which can be added to every adversarial loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from colortrain.lab import Batch
from colortrain.schedule import Schedule, constant

ScoreFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class GradientPenalty:
    """A term of the critic's loss: weight * mean of (|gradient| - target)^2.

    `target` is 1 for WGAN-GP (Gulrajani et al. 2017, equation 3) and 0 for R1
    (Mescheder et al. 2018, equation 9). `points` says at which colours the gradient is
    taken: true colours ("real"), or random points between true and generated colours
    ("interpolated"). `wrt` says with respect to what: the colour channels ("colour"),
    or L and the colour channels ("picture"). `patches` says which score of a critic
    with a map of scores the gradient is of: their mean, or their sum, whose gradient is
    as many times larger as there are patches.
    """

    weight: Schedule = constant(10.0)
    points: Literal["interpolated", "real"] = "interpolated"
    wrt: Literal["colour", "picture"] = "colour"
    # Mescheder et al. have a factor of one half
    target: float = 1.0
    # Drouilhet and L'Herminé take the gradient "of the Critic's output" (section 7.3),
    # Valentini and Nagaro Quiroz that of D, the average of all responses (section III).
    # The usual code, autograd.grad(scores, points, ones_like(scores)), sums.
    patches: Literal["mean", "sum"] = "mean"

    @property
    def name(self) -> str:
        """The penalty's name in logs: "gp", or "r1" if the target is 0."""
        return "gp" if self.target else "r1"


def gradient_norms(
    score: ScoreFunction,
    batch: Batch,
    fake: Tensor,
    points: str,
    wrt: str,
    patches: str = "mean",
) -> Tensor:
    """Return the norm of the gradient of the critic's score, per image: (B,).

    `score` is the critic, a function of L (B, 1, H, W) and colour (B, C, H, W) that
    returns scores (B, ...). `fake` are the generated colours, (B, C, H, W).
    `points`, `wrt` and `patches` are described in `GradientPenalty`.
    """
    mix = batch.mix if points == "interpolated" else torch.zeros_like(batch.mix)
    colour = torch.lerp(batch.colour, fake, mix.to(fake)).detach().requires_grad_()
    L = batch.L.detach().requires_grad_(wrt == "picture")
    scores = score(L, colour).reshape(len(L), -1)
    # by default, a critic with a map of scores is treated like one with a single score
    image_scores = scores.sum(1) if patches == "sum" else scores.mean(1)
    inputs = [L, colour] if wrt == "picture" else [colour]
    gradients = torch.autograd.grad(image_scores.sum(), inputs, create_graph=True)
    squares = torch.stack([gradient.square().flatten(1).sum(1) for gradient in gradients]).sum(0)
    return (squares + 1e-16).sqrt()  # sqrt has an infinite gradient at 0


def penalty_terms(
    penalties: Sequence[GradientPenalty],
    score: ScoreFunction,
    batch: Batch,
    fake: Tensor,
    epoch: float,
) -> dict[str, Tensor]:
    """Return the penalties as scalars, keyed by their names.

    Each is multiplied by its weight at `epoch`; a penalty whose weight is 0 is left
    out. `score` is the critic, and `fake` are the generated colours, as in
    `gradient_norms`.
    """
    norms: dict[tuple[str, str, str], Tensor] = {}
    terms = {}
    for penalty in penalties:
        # not even computed: 0 times an infinite gradient would be NaN
        if not (weight := penalty.weight.at(epoch)):
            continue
        point = (penalty.points, penalty.wrt, penalty.patches)
        # one gradient for all penalties that take the same one (Arun, section II-E)
        if point not in norms:
            norms[point] = gradient_norms(score, batch, fake, *point)
        terms[penalty.name] = weight * (norms[point] - penalty.target).square().mean()
    return terms
