"""Training steps on one process: microbatches, running statistics, scores."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from accelerate import Accelerator

from colortrain.distributed.compute import ComputeConfig
from colortrain.models.batch_invariant import restore_finite_bn_stats
from colortrain.models.square_critic import SquareCriticConfig
from colortrain.training.step import mean_losses, score_real_and_fake, train_step
from tests.support.networks import (
    assert_equal,
    copy_state,
    float_batch,
    l1_loss,
    make_pair,
    recipe_with_dropout,
)
from tests.support.step_equivalence import RECIPES, run_steps


@pytest.mark.parametrize("name", ["bce", "wasserstein_gp"])
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
