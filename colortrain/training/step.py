"""One training step: the order of the critic's and the generator's forward passes, backward passes and updates.

The objective defines the losses, the trainer runs the loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from colortrain.distributed.microbatches import Part, parts_of
from colortrain.distributed.trainable import TrainableNetwork
from colortrain.lab import Batch
from colortrain.losses.penalty import penalty_terms
from colortrain.losses.reconstruction import LossFunction
from colortrain.models.batch_invariant import dropout_keys, frozen_bn_stats
from colortrain.recipe import Objective, Recipe
from colortrain.training.profiling import CRITIC, GENERATOR, NO_PROFILER, Profiler

Losses = dict[str, Tensor]
LossFunctions = Sequence[LossFunction]  # one per reconstruction term of the objective


def generate(
    generator: TrainableNetwork, part: Part, *, grad: bool, update_bn: bool = True
) -> Tensor:
    """What the generator makes of a part: through the wrapper if it learns from it, else without a graph."""
    bn_stats = nullcontext() if update_bn else frozen_bn_stats(generator.module)
    with dropout_keys(generator.module, part.keys), torch.set_grad_enabled(grad), bn_stats:
        return (generator if grad else generator.module)(part.batch.L)


def scores_of(critic: TrainableNetwork, batch: Batch, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of real and of fake pictures: in one pass, unless the critic would mix them (BatchNorm)."""
    if critic.mixes_pictures:
        return critic(batch.L, batch.colour), critic(batch.L, fake)
    real_scores, fake_scores = critic(
        batch.L.repeat(2, 1, 1, 1), torch.cat([batch.colour, fake])
    ).chunk(2)
    return real_scores, fake_scores


def critic_part(
    critic: TrainableNetwork, objective: Objective, part: Part, fake: Tensor, epoch: float
) -> Losses:
    """What the critic learns from one part, real from fake; `fake` is detached.

    Penalties go through the bare critic in full precision, and join the one backward pass.
    """
    with critic.sync_on_last(part.last):
        real_scores, fake_scores = scores_of(critic, part.batch, fake)
        terms = {"critic": objective.adversarial.critic(real_scores, fake_scores)}
        terms |= penalty_terms(objective.penalties, critic.forward_fp32, part.batch, fake, epoch)
        critic.backward(torch.stack(list(terms.values())).sum())
    means = {"score_real": real_scores.detach().mean(), "score_fake": fake_scores.detach().mean()}
    return {**{name: value.detach() for name, value in terms.items()}, **means}


def generator_part(
    generator: TrainableNetwork,
    critic: TrainableNetwork | None,
    objective: Objective,
    loss_functions: LossFunctions,
    part: Part,
    fake: Tensor | None,
    epoch: float,
) -> Losses:
    """What the generator learns from one part: weighted reconstruction, and the bare, frozen critic's judgement.

    `fake`: what it has already made of the part, if it has. A term whose weight is 0 at `epoch` is not computed.
    """
    with generator.sync_on_last(part.last):
        if fake is None:
            fake = generate(generator, part, grad=True)
        terms = {
            term.name: (at, function(fake, part.batch))
            for term, function in zip(objective.reconstruction, loss_functions, strict=True)
            if (at := term.weight.at(epoch))
        }
        weight = objective.adversarial_weight.at(epoch)
        if weight:
            assert critic is not None, "refused by Recipe.check"
            with critic.frozen() as judge:
                terms["adversarial"] = (
                    weight,
                    objective.adversarial.generator(judge(part.batch.L, fake)),
                )
        loss = (
            torch.stack([weight * value for weight, value in terms.values()]).sum()
            if terms
            else 0 * fake.sum()
        )
        generator.backward(loss)
    return {
        "generator": loss.detach(),
        **{name: value.detach() for name, (_, value) in terms.items()},
    }


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
    """Step number `step` (from 0), on one global batch: the critic's turn, the generator's, or both.

    Of n_critic steps the last is the generator's too; of n_generator steps the first is the critic's too. The critic
    rests before `objective.critic_from`. All the critic's parts come before the generator's; where a share is one
    part, one generator forward serves both.
    """
    critic_turn = step % recipe.n_generator == 0 and epoch >= recipe.objective.critic_from
    generator_turn = (step + 1) % recipe.n_critic == 0
    rank, count = generator.accelerator.process_index, generator.compute.accumulate
    parts = parts_of(batch, count, rank, recipe.seed, step)
    fake: Tensor | None = None
    if generator_turn and count == 1:
        with profiler.region(GENERATOR):
            fake = generate(generator, parts[0], grad=True)

    def fake_for_critic(part: Part) -> Tensor:
        if fake is not None:
            return fake.detach()
        with profiler.region(GENERATOR):
            return generate(generator, part, grad=False, update_bn=not generator_turn)

    losses: Losses = {}
    if critic is not None and critic_turn:
        with profiler.region(CRITIC):
            losses |= averaged(
                critic_part(critic, recipe.objective, part, fake_for_critic(part), epoch)
                for part in parts
            )
            critic.update()
    if generator_turn:
        with profiler.region(GENERATOR):
            losses |= averaged(
                generator_part(
                    generator, critic, recipe.objective, loss_functions, part, fake, epoch
                )
                for part in parts
            )
            generator.update()
    return losses


def averaged(losses: Iterable[Losses]) -> Losses:
    """The mean over parts of each loss."""
    rows = list(losses)
    return {name: torch.stack([row[name] for row in rows]).mean() for name in rows[0]}
