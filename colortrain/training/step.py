"""One training step: the order of forward passes, backward passes and updates."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from colortrain.distributed.microbatches import Microbatch, split_batch
from colortrain.distributed.trainable import TrainableNetwork
from colortrain.lab import Batch
from colortrain.losses.penalty import penalty_terms
from colortrain.losses.reconstruction import LossFunction
from colortrain.models.batch_invariant import dropout_keys, frozen_bn_stats
from colortrain.recipe import Objective, Recipe
from colortrain.training.profiling import CRITIC, GENERATOR, NO_PROFILER, Profiler

Losses = dict[str, Tensor]  # scalars on the device, by name
_GOLDEN_RATIO = 0.6180339887498949  # its multiples, modulo 1, are evenly spread over [0, 1)
LossFunctions = Sequence[LossFunction]  # one per reconstruction term of the objective


def generate(
    generator: TrainableNetwork, micro: Microbatch, *, grad: bool, update_bn: bool = True
) -> Tensor:
    """Return the generated colours of a microbatch, (B, codec channels, H, W).

    `grad` says whether a backward pass can follow, `update_bn` whether BatchNorm
    updates its running statistics.
    """
    bn_stats = nullcontext() if update_bn else frozen_bn_stats(generator.module)
    L = micro.batch.L
    dropout = dropout_keys(generator.module, micro.keys, L.device)
    with dropout, torch.set_grad_enabled(grad), bn_stats:
        # a backward pass requires the DDP wrapper
        return (generator if grad else generator.module)(L)


def score_real_and_fake(
    critic: TrainableNetwork, batch: Batch, fake: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the critic's scores of the real and of the generated colours.

    fake: (B, codec channels, H, W), the generated colours.
    """
    if critic.mixes_images:
        return critic(batch.L, batch.colour), critic(batch.L, fake)
    # one forward pass, because the images do not affect each other
    L, colour = batch.L.repeat(2, 1, 1, 1), torch.cat([batch.colour, fake])
    real_scores, fake_scores = critic(L, colour).chunk(2)
    return real_scores, fake_scores


def critic_backward(
    critic: TrainableNetwork, objective: Objective, micro: Microbatch, fake: Tensor, epoch: float
) -> Losses:
    """Run the critic's forward and backward pass on a microbatch; return its losses.

    `fake` are the generated colours, detached. The losses are scalars by name, with the
    mean scores of real and generated colours.
    """
    with critic.sync_on_last(micro.last):
        real_scores, fake_scores = score_real_and_fake(critic, micro.batch, fake)
        terms = {"critic": objective.adversarial.critic(real_scores, fake_scores)}
        # in float32 and without the DDP wrapper
        terms |= penalty_terms(objective.penalties, critic.forward_fp32, micro.batch, fake, epoch)
        critic.backward(torch.stack(list(terms.values())).sum())
    means = {"score_real": real_scores.detach().mean(), "score_fake": fake_scores.detach().mean()}
    return {**{name: value.detach() for name, value in terms.items()}, **means}


def generator_backward(
    generator: TrainableNetwork,
    critic: TrainableNetwork | None,
    objective: Objective,
    loss_functions: LossFunctions,
    micro: Microbatch,
    fake: Tensor | None,
    epoch: float,
) -> Losses:
    """Run the generator's forward and backward pass on a microbatch; return its losses.

    `fake` are the generated colours with their graph; if it is None, they are generated
    first. The losses are scalars by name: "generator" is the weighted sum, the others
    are unweighted.
    """
    with generator.sync_on_last(micro.last):
        if fake is None:
            fake = generate(generator, micro, grad=True)
        # terms whose weight is 0 at `epoch` are not computed
        terms = {
            term.name: (weight, function(fake, micro.batch))
            for term, function in zip(objective.reconstruction, loss_functions, strict=True)
            if (weight := term.weight.at(epoch))
        }
        if weight := objective.adversarial_weight.at(epoch):
            terms["adversarial"] = weight, _adversarial_loss(critic, objective, micro.batch, fake)
        if terms:
            loss = torch.stack([weight * value for weight, value in terms.values()]).sum()
        else:
            loss = 0 * fake.sum()
        generator.backward(loss)
    values = {name: value.detach() for name, (_, value) in terms.items()}
    return {"generator": loss.detach(), **values}


def _adversarial_loss(
    critic: TrainableNetwork | None, objective: Objective, batch: Batch, fake: Tensor
) -> Tensor:
    assert critic is not None, "Recipe.check refuses an adversarial loss without a critic"
    with critic.frozen() as frozen_critic:
        return objective.adversarial.generator(frozen_critic(batch.L, fake))


def train_step(
    generator: TrainableNetwork,
    critic: TrainableNetwork | None,
    recipe: Recipe,
    loss_functions: LossFunctions,
    batch: Batch,
    step: int,
    epoch: float,
    profiler: Profiler = NO_PROFILER,
) -> Losses:
    """Take one training step: update the critic, the generator, or both.

    `step` counts from 0. `batch` is this rank's part of the global batch. The recipe's
    schedules are evaluated at `epoch`. The result is the losses, scalars by name; of
    several updates of the critic on the batch, those of the last.
    """
    # The generator is updated in the last of every `n_critic` steps, or in each step if
    # the critic's updates are all on one batch. The critic is updated in the first of
    # every `n_generator` steps. Each update uses all microbatches.
    one_batch = recipe.critic_batches == "same"
    critic_due = step % recipe.n_generator == 0 and recipe.objective.trains_critic(epoch)
    generator_due = one_batch or (step + 1) % recipe.n_critic == 0
    rank, count = generator.accelerator.process_index, generator.compute.accumulate
    microbatches = split_batch(batch, count, rank, recipe.seed, step)
    fake: Tensor | None = None
    # with one microbatch, both updates use the same forward pass
    if generator_due and count == 1:
        with profiler.region(GENERATOR):
            fake = generate(generator, microbatches[0], grad=True)

    def fake_for_critic(micro: Microbatch) -> Tensor:
        if fake is not None:
            return fake.detach()
        with profiler.region(GENERATOR):
            return generate(generator, micro, grad=False, update_bn=not generator_due)

    losses: Losses = {}
    if critic is not None and critic_due:
        with profiler.region(CRITIC):
            for update in range(recipe.n_critic if one_batch else 1):
                repeated = [repeat(micro, update) for micro in microbatches]
                losses |= mean_losses(
                    critic_backward(critic, recipe.objective, micro, fake_for_critic(micro), epoch)
                    for micro in repeated
                )
                critic.update()
    if generator_due:
        with profiler.region(GENERATOR):
            losses |= mean_losses(
                generator_backward(
                    generator, critic, recipe.objective, loss_functions, micro, fake, epoch
                )
                for micro in microbatches
            )
            generator.update()
    return losses


def repeat(micro: Microbatch, update: int) -> Microbatch:
    """Return the microbatch for one of the critic's updates on it, counted from 0.

    Each update has different random numbers for the points of a gradient penalty.
    """
    if update == 0:
        return micro
    # still uniform in [0, 1), and the same on any number of processes
    mix = (micro.batch.mix + update * _GOLDEN_RATIO) % 1
    return dataclasses.replace(micro, batch=dataclasses.replace(micro.batch, mix=mix))


def mean_losses(losses: Iterable[Losses]) -> Losses:
    """Return the mean of each loss over the microbatches of a step.

    losses: one dict of scalars by name for each microbatch.
    """
    rows = list(losses)
    if len(rows) == 1:
        return rows[0]
    return {name: torch.stack([row[name] for row in rows]).mean() for name in rows[0]}
