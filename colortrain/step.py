"""The order of things inside one training step; the mathematics is the objective's, the loop is the trainer's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from colortrain.lab import Batch
from colortrain.losses.penalty import penalty_terms
from colortrain.losses.reconstruction import Measure
from colortrain.recipe import Adam, Objective, Recipe

Losses = dict[str, Tensor]
Measures = Sequence[Measure]  # one for each reconstruction term of the objective


class Network:
    """A module with its optimizer, wrapped for data-parallel training.

    Calling it goes through the wrapper (gradients are averaged over ranks); `.module` is the bare network,
    `.exact` its forward without autocast.
    """

    def __init__(self, module: nn.Module, adam: Adam, accelerator: Accelerator) -> None:
        optimizer = torch.optim.Adam(module.parameters(), lr=adam.lr, betas=adam.betas, eps=adam.eps)
        self.adam, self.accelerator = adam, accelerator
        self.wrapped, self.optimizer = accelerator.prepare(module, optimizer)
        self.module: nn.Module = accelerator.unwrap_model(self.wrapped)
        # accelerate replaces forward on the instance by one that autocasts; the class still has the exact one
        self.exact: Callable[..., Tensor] = type(self.module).forward.__get__(self.module)

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.wrapped(*inputs)

    def update(self, loss: Tensor) -> None:
        """One backward, one optimizer step: a second backward would break DDP's bookkeeping."""
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def set_rate(self, factor: float) -> None:
        """Learning rate = the recipe's times `factor`."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.adam.lr * factor

    @contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """The bare module whose parameters take no gradient, so that the other network's step leaves none behind."""
        self.module.requires_grad_(False)
        try:
            yield self.module
        finally:
            self.module.requires_grad_(True)


@torch.no_grad()
def settle(network: Network, *inputs: Tensor) -> None:
    """One pass without consequences, before the first step of a process, so that a resumed run adds up as before.

    DDP lays its gradient buckets out anew after its first backward pass, and among more than two ranks the order of a
    sum depends on where in a bucket it stands.
    """
    before = [buffer.clone() for buffer in network.module.buffers()]
    with torch.enable_grad():
        network.accelerator.backward(network(*inputs).sum() * 0)
    network.optimizer.zero_grad()
    for buffer, old in zip(network.module.buffers(), before, strict=True):
        buffer.copy_(old)


def critic_step(critic: Network, objective: Objective, batch: Batch, fake: Tensor, epoch: float) -> Losses:
    """Teach the critic real from fake; `fake` is detached. Two passes: a critic with BatchNorm must not mix them.

    Penalties go through the bare critic in full precision, and join the one backward pass.
    """
    real_scores, fake_scores = critic(batch.L, batch.colour), critic(batch.L, fake)
    terms = {"critic": objective.adversarial.critic(real_scores, fake_scores)}
    terms |= penalty_terms(objective.penalties, critic.exact, batch, fake, epoch)
    critic.update(torch.stack(list(terms.values())).sum())
    means = {"score_real": real_scores.detach().mean(), "score_fake": fake_scores.detach().mean()}
    return {**{name: value.detach() for name, value in terms.items()}, **means}


def generator_step(
    generator: Network,
    critic: Network,
    objective: Objective,
    measures: Measures,
    batch: Batch,
    fake: Tensor,
    epoch: float,
) -> Losses:
    """Move the generator: weighted reconstruction, and the adversarial term through the bare, frozen critic."""
    terms = {
        term.name: (term.weight.at(epoch), measure(fake, batch))
        for term, measure in zip(objective.reconstruction, measures, strict=True)
    }
    weight = objective.adversarial_weight.at(epoch)
    if weight:
        with critic.frozen() as judge:
            terms["adversarial"] = (weight, objective.adversarial.generator(judge(batch.L, fake)))
    loss = torch.stack([weight * value for weight, value in terms.values()]).sum()
    generator.update(loss)
    return {"generator": loss.detach(), **{name: value.detach() for name, (_, value) in terms.items()}}


def train_step(
    generator: Network, critic: Network, recipe: Recipe, measures: Measures, batch: Batch, step: int, epoch: float
) -> Losses:
    """Step number `step` (from 0), on one global batch: the critic's turn, the generator's, or both.

    Of n_critic steps the last is the generator's too; of n_generator steps the first is the critic's too. The critic
    rests before `objective.critic_from`. One generator forward serves both where both have their turn.
    """
    critic_turn = step % recipe.n_generator == 0 and epoch >= recipe.objective.critic_from
    generator_turn = (step + 1) % recipe.n_critic == 0
    with torch.set_grad_enabled(generator_turn):
        fake = generator(batch.L) if generator_turn else generator.module(batch.L)
    losses: Losses = {}
    if critic_turn:
        losses |= critic_step(critic, recipe.objective, batch, fake.detach(), epoch)
    if generator_turn:
        losses |= generator_step(generator, critic, recipe.objective, measures, batch, fake, epoch)
    return losses
