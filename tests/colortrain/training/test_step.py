"""Training steps on one process: microbatches, running statistics, scores."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from accelerate import Accelerator

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.microbatches import Microbatch
from colortrain.lab import Batch
from colortrain.losses.adversarial import Wasserstein
from colortrain.losses.penalty import GradientPenalty
from colortrain.models.batch_invariant import restore_finite_bn_stats
from colortrain.models.square_critic import SquareCriticConfig
from colortrain.recipe import Objective, override
from colortrain.schedule import Schedule, constant
from colortrain.training.step import mean_losses, repeat, score_real_and_fake, train_step
from launch.benchmark.training.plain_loop import PlainLoop
from tests.support.networks import (
    assert_equal,
    copy_state,
    float_batch,
    l1_loss,
    make_pair,
    recipe_with_dropout,
)
from tests.support.step_equivalence import RECIPES, run_steps

SCORES = ("score_real", "score_fake")


@pytest.mark.parametrize("name", ["bce", "wasserstein_gp", "one_batch"])
def test_microbatches_take_the_step_of_the_whole_batch(name: str) -> None:
    accelerator = Accelerator(cpu=True)
    whole = run_steps(RECIPES[name], torch.float64, accelerator, ComputeConfig())
    for accumulate in (4, 8):
        compute = ComputeConfig(accumulate=accumulate)
        split = run_steps(RECIPES[name], torch.float64, accelerator, compute)
        assert split.keys() == whole.keys()
        errors = [(split[key] - tensor).abs().max().item() for key, tensor in whole.items()]
        assert max(errors) < 1e-10


def test_running_statistics_are_updated_once_per_microbatch() -> None:
    """The generator's own forward pass updates them, the one for the critic not."""
    recipe = recipe_with_dropout()
    pair = make_pair(recipe, ComputeConfig(accumulate=2))
    train_step(*pair, recipe, [l1_loss], float_batch(0), 0, 0.0)
    counts = {
        value.item()
        for name, value in copy_state(pair[0]).items()
        if name.endswith("num_batches_tracked")
    }
    assert counts == {2}


def test_one_forward_pass_gives_the_scores_of_two() -> None:
    config = SquareCriticConfig(base_channels=4, depth=2, norm="instance")
    _, critic = make_pair(dataclasses.replace(RECIPES["bce"], critic=config))
    batch = float_batch(0)
    fake = torch.zeros_like(batch.colour)
    assert not critic.mixes_images
    real_scores, fake_scores = score_real_and_fake(critic, batch, fake)
    torch.testing.assert_close(real_scores, critic(batch.L, batch.colour))
    torch.testing.assert_close(fake_scores, critic(batch.L, fake))


def test_running_statistics_stay_finite_after_a_skipped_step() -> None:
    recipe = recipe_with_dropout()
    pair = make_pair(recipe)
    for step, offset in enumerate((0.0, math.inf)):
        before = [copy_state(network) for network in pair]
        batch = float_batch(step)
        batch.L[0, 0, 0, 0] += offset
        with restore_finite_bn_stats(*(network.module for network in pair)):
            train_step(*pair, recipe, [l1_loss], batch, step, 0.0)
    for network, expected in zip(pair, before, strict=True):
        assert any("running_mean" in name for name in expected)
        states = copy_state(network), expected
        one, other = (
            {name: value for name, value in state.items() if "num_batches" not in name}
            for state in states
        )
        assert_equal(one, other)


def test_mean_losses_are_means_by_name() -> None:
    rows = [
        {"l1": torch.tensor(1.0), "gp": torch.tensor(4.0)},
        {"l1": torch.tensor(2.0), "gp": torch.tensor(0.0)},
    ]
    assert {name: value.item() for name, value in mean_losses(rows).items()} == {"l1": 1.5, "gp": 2}


def test_the_critics_steps_on_one_batch_are_those_of_a_plain_loop() -> None:
    """Three updates of the critic with different points, then one of the generator."""
    recipe = RECIPES["one_batch"]
    pair = make_pair(recipe)
    generator, critic = (copy.deepcopy(network.module) for network in pair)
    plain = PlainLoop(recipe, generator, critic, torch.device("cpu"))
    for step in range(2):
        batch = float_batch(step)
        losses = train_step(*pair, recipe, [l1_loss], batch, step, 0.0)
        assert {"critic", "gp", "generator"} <= losses.keys()
        fake = plain.generator(batch.L)
        for update in range(recipe.n_critic):
            mix = (batch.mix + update * (math.sqrt(5) - 1) / 2) % 1
            plain.update_critic(dataclasses.replace(batch, mix=mix), fake.detach())
        plain.update_generator(batch, fake)
    for network, module in zip(pair, (plain.generator, plain.critic), strict=True):
        for name, tensor in module.state_dict().items():
            torch.testing.assert_close(network.module.state_dict()[name], tensor, msg=name)


def test_a_penalty_is_left_out_while_its_weight_is_0() -> None:
    """The step is then bit for bit that of a recipe without the penalty."""

    def step(epoch: float, *weights: Schedule) -> tuple[dict[str, torch.Tensor], set[str]]:
        penalties = tuple(GradientPenalty(weight=weight) for weight in weights)
        objective = Objective(adversarial=Wasserstein(), penalties=penalties)
        recipe = dataclasses.replace(RECIPES["bce"], objective=objective)
        generator, critic = make_pair(recipe)
        losses = train_step(generator, critic, recipe, [l1_loss], float_batch(0), 0, epoch)
        return copy_state(critic), set(losses)

    later = Schedule(((0, 0), (1, 10)))
    (off, off_names), (without, names) = step(0.5, later), step(0.5)
    assert_equal(off, without)
    assert off_names == names == {"critic", "generator", "l1", "adversarial", *SCORES}
    (on, on_names), (always, _) = step(1.0, later), step(0.0, constant(10))
    assert_equal(on, always)
    assert on_names == {*names, "gp"}
    assert any(not torch.equal(on[name], tensor) for name, tensor in off.items())


def test_repeated_updates_have_uniform_points() -> None:
    """Each update's numbers are evenly spread in [0, 1), and differ from others'."""
    mix = (torch.arange(1000) / 1000).view(-1, 1, 1, 1)
    batch = Batch(mix, mix, mix)
    micro = Microbatch(batch, torch.zeros(1000, dtype=torch.int32), last=True)
    draws = torch.stack([repeat(micro, update).batch.mix.flatten() for update in range(5)])
    assert torch.equal(draws[0], mix.flatten())
    assert 0 <= draws.min() <= draws.max() < 1
    counts = torch.stack([torch.histc(row, bins=10, min=0, max=1) for row in draws])
    assert (counts - 100).abs().max() <= 1
    gaps = (draws[:, None] - draws[None]).abs().amin(2) + torch.eye(5)
    assert gaps.min() > 0.1  # between two updates, of the same image


@pytest.mark.parametrize(
    ("batches", "updates"), [("fresh", [(1, 0), (1, 0), (1, 1)] * 2), ("same", [(3, 1)] * 6)]
)
def test_updates_of_each_step(batches: str, updates: list[tuple[int, int]]) -> None:
    """Three updates of the critic for one of the generator: three batches or one."""
    recipe = override(RECIPES["wasserstein_gp"], ["n_critic=3", f"critic_batches={batches}"])
    generator, critic = make_pair(recipe)
    counted = []
    for step in range(6):
        train_step(generator, critic, recipe, [l1_loss], float_batch(step), step, 0.0)
        counted.append((len(critic.grad_norms), len(generator.grad_norms)))
        critic.grad_norms, generator.grad_norms = [], []
    assert counted == updates


def test_the_critic_may_be_updated_in_every_other_epoch_only() -> None:
    recipe = override(RECIPES["bce"], ["objective.critic_every=2", "objective.critic_from=1.5"])
    generator, critic = make_pair(recipe)
    updated = []
    for step in range(20):
        train_step(generator, critic, recipe, [l1_loss], float_batch(step), step, epoch=step / 4)
        updated.append(len(critic.grad_norms))
        critic.grad_norms = []
    # epochs 0 and 1 are before `critic_from` or odd; 2 and 4 are even
    assert updated == [0] * 8 + [1] * 4 + [0] * 4 + [1] * 4
    assert len(generator.grad_norms) == 20
