"""A loop in plain PyTorch with only the mathematics of a recipe's training steps.

Benchmarks compare colortrain's steps with it. It has no accelerate, microbatches,
counter-based random numbers, gradient norms, skipped updates or logs.
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


def is_supported(recipe: Recipe) -> bool:
    """Return whether `PlainLoop` implements the losses and optimizers of a recipe."""
    objective, adams = recipe.objective, (recipe.generator_adam, recipe.critic_adam)
    known = GradientPenalty(weight=objective.penalties[0].weight) if objective.penalties else None
    terms = objective.reconstruction
    return (
        recipe.critic is not None
        and isinstance(objective.adversarial, BCE | Wasserstein)
        and len(terms) == 1
        and terms[0] == L1(weight=terms[0].weight)
        and list(objective.penalties) == [known] * len(objective.penalties)
        and len(objective.penalties) <= 1
        and (recipe.n_generator, recipe.critic_batches, objective.critic_every) == (1, "fresh", 1)
        and not (objective.critic_from or any(adam.clip or adam.muon for adam in adams))
    )


def bce(scores: Tensor, label: float) -> Tensor:
    """Return the mean binary cross-entropy of `scores`, all with the same label.

    scores: the critic's logits, of any shape.
    """
    return binary_cross_entropy_with_logits(scores, torch.full_like(scores, label))


class PlainLoop:
    """A training loop: BCE or Wasserstein loss, L1, and at most one gradient penalty.

    The weights of the losses keep their initial values.
    """

    def __init__(
        self, recipe: Recipe, generator: nn.Module, critic: nn.Module, device: torch.device
    ) -> None:
        self.objective, self.n_critic = recipe.objective, recipe.n_critic
        self.generator, self.critic = generator.to(device), critic.to(device)
        self.generator_adam = make_adam(generator, recipe.generator_adam)
        self.critic_adam = make_adam(critic, recipe.critic_adam)
        self.steps = 0

    def step(self, batch: Batch) -> None:
        """Update the critic and, in every `n_critic`-th step, also the generator."""
        self.steps += 1
        update_generator = self.steps % self.n_critic == 0
        with torch.set_grad_enabled(update_generator):
            fake = self.generator(batch.L)
        self.update_critic(batch, fake.detach())
        if update_generator:
            self.update_generator(batch, fake)

    def update_critic(self, batch: Batch, fake: Tensor) -> None:
        """Take one optimizer step of the critic.

        fake: (B, 2, H, W), the generated ab in about [-1, 1], detached.
        """
        real_scores, fake_scores = self.critic(batch.L, batch.colour), self.critic(batch.L, fake)
        adversarial = self.objective.adversarial
        if isinstance(adversarial, BCE):
            loss = adversarial.critic_factor * (
                bce(real_scores, adversarial.real_label) + bce(fake_scores, adversarial.fake_label)
            )
        else:
            loss = fake_scores.mean() - real_scores.mean()
        for term in self.objective.penalties:
            if weight := term.weight.at(0):
                loss = loss + weight * self.penalty(batch, fake)
        self.critic_adam.zero_grad()
        loss.backward()
        self.critic_adam.step()

    def penalty(self, batch: Batch, fake: Tensor) -> Tensor:
        """Return the gradient penalty (|gradient| - 1)^2, averaged over the batch.

        For each image, the gradient of the critic's mean score is taken at a random
        point between the real ab and the generated ab. fake: (B, 2, H, W), the
        generated ab in about [-1, 1].
        """
        colour = (batch.colour + batch.mix * (fake - batch.colour)).requires_grad_()
        scores = self.critic(batch.L, colour).flatten(1).mean(1)
        (gradient,) = torch.autograd.grad(scores.sum(), colour, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    def update_generator(self, batch: Batch, fake: Tensor) -> None:
        """Take one optimizer step of the generator.

        fake: (B, 2, H, W), the generated ab in about [-1, 1], not detached.
        """
        self.critic.requires_grad_(False)
        scores = self.critic(batch.L, fake)
        is_bce = isinstance(self.objective.adversarial, BCE)
        adversarial = bce(scores, 1.0) if is_bce else -scores.mean()
        distance = (fake - batch.colour).abs().mean()
        weight = self.objective.reconstruction[0].weight.at(0)
        loss = self.objective.adversarial_weight.at(0) * adversarial + weight * distance
        self.generator_adam.zero_grad()
        loss.backward()
        self.generator_adam.step()
        self.critic.requires_grad_(True)


def make_adam(module: nn.Module, settings: Adam) -> torch.optim.Adam:
    """Return a torch.optim.Adam for a module, with a recipe's settings."""
    return torch.optim.Adam(
        module.parameters(), lr=settings.lr, betas=settings.betas, eps=settings.eps
    )
