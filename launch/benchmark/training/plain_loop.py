"""The training loop one writes by hand, in plain PyTorch: the mathematics of a recipe's step and nothing besides.

No accelerate, no microbatches, no counted draws, no norms, no skipped updates, nothing logged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from colortrain.lab import Batch
from colortrain.losses.adversarial import BCE, Wasserstein
from colortrain.losses.penalty import GradientPenalty
from colortrain.losses.reconstruction import L1
from colortrain.recipe import Adam, Recipe


def is_writable(recipe: Recipe) -> bool:
    """Whether `PlainLoop` has been written for such a recipe."""
    objective, adams = recipe.objective, (recipe.generator_adam, recipe.critic_adam)
    known = GradientPenalty(weight=objective.penalties[0].weight) if objective.penalties else None
    return (
        recipe.critic is not None
        and isinstance(objective.adversarial, BCE | Wasserstein)
        and [type(term) for term in objective.reconstruction] == [L1]
        and list(objective.penalties) == [known] * len(objective.penalties)
        and len(objective.penalties) <= 1
        and recipe.n_generator == 1
        and not (objective.critic_from or any(adam.clip or adam.muon for adam in adams))
    )


def bce(scores: Tensor, label: float) -> Tensor:
    """Cross-entropy of logits against one label."""
    return binary_cross_entropy_with_logits(scores, torch.full_like(scores, label))


class PlainLoop:
    """Cross-entropy or Wasserstein, L1, perhaps a gradient penalty: schedules at their first value."""

    def __init__(
        self, recipe: Recipe, generator: nn.Module, critic: nn.Module, device: torch.device
    ) -> None:
        self.objective, self.n_critic = recipe.objective, recipe.n_critic
        self.generator, self.critic = generator.to(device), critic.to(device)
        self.generator_adam = adam(generator, recipe.generator_adam)
        self.critic_adam = adam(critic, recipe.critic_adam)
        self.steps = 0

    def step(self, batch: Batch) -> None:
        """The critic's turn, and every `n_critic` steps the generator's."""
        self.steps += 1
        generators_turn = self.steps % self.n_critic == 0
        with torch.set_grad_enabled(generators_turn):
            fake = self.generator(batch.L)
        self.teach_critic(batch, fake.detach())
        if generators_turn:
            self.teach_generator(batch, fake)

    def teach_critic(self, batch: Batch, fake: Tensor) -> None:
        """One update of the critic."""
        real_scores, fake_scores = self.critic(batch.L, batch.colour), self.critic(batch.L, fake)
        game = self.objective.adversarial
        if isinstance(game, BCE):
            loss = game.critic_factor * (
                bce(real_scores, game.real_label) + bce(fake_scores, game.fake_label)
            )
        else:
            loss = fake_scores.mean() - real_scores.mean()
        if self.objective.penalties:
            loss = loss + self.objective.penalties[0].weight.at(0) * self.penalty(batch, fake)
        self.critic_adam.zero_grad()
        loss.backward()
        self.critic_adam.step()

    def penalty(self, batch: Batch, fake: Tensor) -> Tensor:
        """(|gradient| - 1)^2 of mean scores between real and fake colours."""
        colour = (batch.colour + batch.mix * (fake - batch.colour)).requires_grad_()
        scores = self.critic(batch.L, colour).flatten(1).mean(1)
        (gradient,) = torch.autograd.grad(scores.sum(), colour, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    def teach_generator(self, batch: Batch, fake: Tensor) -> None:
        """One update of the generator."""
        self.critic.requires_grad_(False)
        scores = self.critic(batch.L, fake)
        judged = bce(scores, 1.0) if isinstance(self.objective.adversarial, BCE) else -scores.mean()
        distance = (fake - batch.colour).abs().mean()
        weight = self.objective.reconstruction[0].weight.at(0)
        loss = self.objective.adversarial_weight.at(0) * judged + weight * distance
        self.generator_adam.zero_grad()
        loss.backward()
        self.generator_adam.step()
        self.critic.requires_grad_(True)


def adam(module: nn.Module, settings: Adam) -> torch.optim.Adam:
    """PyTorch's Adam as it comes."""
    return torch.optim.Adam(
        module.parameters(), lr=settings.lr, betas=settings.betas, eps=settings.eps
    )
