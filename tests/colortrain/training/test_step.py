"""Steps in parts, draws by place, gradients clipped and left out: on one process, against closed forms."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.microbatches import parts_of
from colortrain.distributed.trainable import Skips, TrainableNetwork
from colortrain.distributed.wrap import make_networks, num_normalised
from colortrain.lab import Batch
from colortrain.models.batch_invariant import (
    KeyedDropout,
    dropout_keys,
    frozen_bn_stats,
    image_keys,
    mixes_images,
    replace_dropout,
    restore_finite_bn_stats,
)
from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.pix2pix import UNetConfig
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.models.square_critic import SquareCriticConfig
from colortrain.recipe import Adam, Recipe, override
from colortrain.recipes import RECIPES, get_recipe
from colortrain.scale_down import scaled_down, without_downloads
from colortrain.training.step import scores_of, train_step
from shards.errors import UserError
from tests.support.step_equivalence import RECIPES as GAMES
from tests.support.step_equivalence import outcome, pictures
from tests.support.thin_recipes import thin

CPU = torch.device("cpu")


def recipe_with_dropout() -> Recipe:
    """BatchNorm and dropout in the generator, BatchNorm in the critic."""
    return dataclasses.replace(
        GAMES["bce"],
        generator=UNetConfig(base_channels=4, levels=4),
        critic=PatchCriticConfig(base_channels=4, strided_layers=2),
    )


def networks(
    recipe: Recipe, compute: ComputeConfig | None = None
) -> tuple[TrainableNetwork, TrainableNetwork]:
    torch.manual_seed(0)
    generator, critic = make_networks(
        recipe, *recipe.build_networks(), Accelerator(cpu=True), compute or ComputeConfig()
    )
    assert critic is not None
    return generator, critic


def state(network: TrainableNetwork) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.module.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("name", ["bce", "wasserstein_gp"])
def test_microbatches_make_the_step_of_the_whole(name: str) -> None:
    accelerator = Accelerator(cpu=True)
    whole = outcome(GAMES[name], torch.float64, accelerator, ComputeConfig())
    for accumulate in (4, 8):
        parts = outcome(
            GAMES[name], torch.float64, accelerator, ComputeConfig(accumulate=accumulate)
        )
        assert parts.keys() == whole.keys()
        assert (
            max((parts[key] - tensor).abs().max().item() for key, tensor in whole.items()) < 1e-10
        )


def test_microbatches_count_statistics_once() -> None:
    """Running statistics move once a microbatch, in the pass that learns, not in the critic's as well."""
    recipe = recipe_with_dropout()
    pair = networks(recipe, ComputeConfig(accumulate=2))
    train_step(
        *pair,
        recipe,
        [lambda fake, batch: (fake - batch.colour).abs().mean()],
        pictures(2, 0),
        0,
        0.0,
    )
    counts = {
        name: value.item()
        for name, value in state(pair[0]).items()
        if name.endswith("num_batches_tracked")
    }
    assert set(counts.values()) == {2}


def test_a_share_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"each of 2 processes has 4 pictures of a batch; use one of \[1, 2, 4\]"
    ):
        ComputeConfig(accumulate=3).check_share(8, 2)
    with pytest.raises(UserError, match="leave out --recompute"):
        ComputeConfig(compile=True, recompute=True)
    with pytest.raises(UserError, match="at least 1"):
        ComputeConfig(accumulate=0)


def test_parts_are_the_share_in_order() -> None:
    batch = pictures(2, 0)
    parts = parts_of(batch, 4, rank=1, seed=0, step=0)
    assert torch.equal(torch.cat([part.batch.L for part in parts]), batch.L)
    assert torch.equal(torch.cat([part.keys for part in parts]), image_keys(0, 0, 8, 8, CPU))
    assert [part.last for part in parts] == [False, False, False, True]


def dropped(
    whole_channels: bool = False, p: float = 0.5, layer: int = 0, first: int = 0, step: int = 0
) -> Tensor:
    """Which of (4, 32, 16, 16) ones are dropped for four pictures from place `first` on."""
    module = KeyedDropout(p, layer, whole_channels)
    with dropout_keys(module, image_keys(7, step, first, 4, CPU)):
        return module(torch.ones(4, 32, 16, 16)) == 0


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_draws_are_independent_coins(p: float) -> None:
    """Shares of zeros, and of common zeros of two pictures, layers or steps, within five standard deviations."""
    drops = dropped(p=p)
    pairs = (
        [drops[0], drops[1]],
        [drops, dropped(p=p, layer=1)],
        [drops, dropped(p=p, step=1)],
        [drops[:, 1:], drops[:, :-1]],
    )
    for one, other in (*pairs, [drops[..., 1:], drops[..., :-1]]):
        for events, chance in ((one, p), (one & other, p * p)):
            assert abs(events.double().mean().item() - chance) < 5 * math.sqrt(
                chance * (1 - chance) / events.numel()
            )


def test_draws_follow_the_place_in_the_global_batch() -> None:
    assert torch.equal(dropped(first=0)[2:], dropped(first=2)[:2])
    channels = dropped(whole_channels=True)
    assert torch.equal(channels.all((2, 3)), channels.any((2, 3)))
    assert 0 < channels.double().mean() < 1


def test_what_stays_is_scaled() -> None:
    module = KeyedDropout(0.2, 0, False)
    x = torch.randn(4, 3, 8, 8, requires_grad=True)
    with dropout_keys(module, image_keys(0, 0, 0, 4, CPU)):
        y = module(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(y[y != 0], x[y != 0] / 0.8)
    assert torch.equal(x.grad != 0, y != 0)


def test_outside_of_steps_dropout_is_torchs() -> None:
    """Pictures made with dropout on draw from torch's generator, as the network that was never trained does."""
    x = torch.ones(2, 4, 8, 8)
    for placed, plain in (
        (KeyedDropout(0.5, 3, False), F.dropout),
        (KeyedDropout(0.5, 3, True), F.dropout2d),
    ):
        torch.manual_seed(5)
        found = placed(x)
        torch.manual_seed(5)
        assert torch.equal(found, plain(x, 0.5))
        assert torch.equal(placed.eval()(x), x)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_placing_dropout_changes_no_names(name: str) -> None:
    with torch.device("meta"):
        generator = thin(get_recipe(name)).generator.build()
        before = list(generator.state_dict())
        rates = [
            module.p
            for module in generator.modules()
            if isinstance(module, nn.Dropout | nn.Dropout2d)
        ]
        replace_dropout(generator)
    placed = [module for module in generator.modules() if isinstance(module, KeyedDropout)]
    assert list(generator.state_dict()) == before
    assert [module.p for module in placed] == rates
    assert len({module.layer for module in placed}) == len(placed)


def quadratic(compute: ComputeConfig | None = None, **adam: float) -> TrainableNetwork:
    """A network of one weight vector (3, 4); its loss is what a test makes of it."""
    module = nn.Linear(2, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    return TrainableNetwork(
        module, Adam(lr=0.1, betas=(0.5, 0.999), **adam), Accelerator(cpu=True), compute
    )


def test_clipping_leaves_the_direction() -> None:
    """A gradient (3, 4) has norm 5; clipped to 1, Adam's first moment is half of (.6, .8)."""
    for clip, expected in ((1.0, [0.3, 0.4]), (6.0, [1.5, 2.0]), (0.0, [1.5, 2.0])):
        network = quadratic(clip=clip)
        network.backward(network(torch.tensor([[3.0, 4.0]])).sum())
        network.update()
        (moments,) = network.optimizer.state.values()
        assert moments["exp_avg"].flatten().tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_update_that_is_not_finite_is_left_out(fused: bool, bad: float) -> None:
    """Nothing moves, Adam's step count neither; the next good one counts as if it had not been."""
    network, undisturbed = (
        quadratic(ComputeConfig(fused_adam=fused)),
        quadratic(ComputeConfig(fused_adam=fused)),
    )
    for scale in (1.0, bad, 2.0):
        network.backward(network(torch.tensor([[3.0, 4.0]])).sum() * scale)
        network.update()
        if math.isfinite(scale):
            undisturbed.backward(undisturbed(torch.tensor([[3.0, 4.0]])).sum() * scale)
            undisturbed.update()
    assert_same(state(network), state(undisturbed))
    (found,), (expected,) = network.optimizer.state.values(), undisturbed.optimizer.state.values()
    assert_same(found, expected)
    assert network.skips.read() == (1, 1)


def test_a_loss_that_is_not_finite_spoils_finite_gradients() -> None:
    """An infinite constant has no slope; other ranks learn of it through the averaged gradients all the same."""
    network = quadratic(ComputeConfig(accumulate=2))
    before = state(network)
    network.backward(network(torch.ones(1, 2)).sum() + math.inf)
    (weight,) = network.module.parameters()
    assert weight.grad is not None
    assert weight.grad.isnan().all()
    network.backward(network(torch.ones(1, 2)).sum())
    network.update()
    assert_same(state(network), before)


def test_skips_in_a_row() -> None:
    skips = Skips(CPU)
    for failed in (1, 1, 0, 1):
        skips.see(torch.tensor(float(failed)))
    assert skips.read() == (3, 2)
    skips.see(torch.tensor(1.0))
    assert skips.read() == (1, 2)  # the row goes on over readings
    skips.see(torch.tensor(0.0))
    assert skips.read() == (0, 2)
    assert skips.read() == (0, 0)


def test_one_pass_scores_as_two() -> None:
    recipe = dataclasses.replace(
        GAMES["bce"], critic=SquareCriticConfig(base_channels=4, depth=2, norm="instance")
    )
    _, critic = networks(recipe)
    batch = pictures(2, 0)
    batch = Batch(batch.L.float(), batch.colour.float(), batch.mix.float())
    fake = torch.zeros_like(batch.colour)
    assert not critic.mixes_pictures
    real_scores, fake_scores = scores_of(critic, batch, fake)
    torch.testing.assert_close(real_scores, critic(batch.L, batch.colour))
    torch.testing.assert_close(fake_scores, critic(batch.L, fake))


def test_critics_that_mix_pictures_are_known() -> None:
    kinds = {"batch": True, "instance": False, "none": False, "pixel": False}
    for norm, mixes in kinds.items():
        assert mixes_images(SquareCriticConfig(base_channels=4, norm=norm).build()) == mixes  # type: ignore[arg-type]
    deviates = SquareCriticConfig(base_channels=4, norm="none", minibatch_stddev=True)
    assert mixes_images(deviates.build())


@contextmanager
def counting_saved() -> Iterator[list[int]]:
    """Bytes of each tensor that autograd keeps for the backward pass."""
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield sizes


GENERATORS = [
    name
    for name in sorted(RECIPES)
    if name not in ("nazeri_gan_places", "nazeri_unet_l2", "valentini_cgan")
]


@pytest.mark.parametrize("name", GENERATORS)
def test_recomputing_changes_nothing_but_memory(name: str) -> None:
    """Gradients, statistics and dropout to the last bit, from fewer bytes kept."""
    generator = thin(get_recipe(name)).generator
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        module = ComputeConfig(recompute=recompute).arrange(
            generator.build(), compiles=True, recomputes=True
        )
        torch.manual_seed(1)
        with counting_saved() as sizes, dropout_keys(module, image_keys(0, 0, 0, 4, CPU)):
            made = module(torch.rand(4, 1, 64, 64))
        made.square().mean().backward()
        with torch.no_grad():
            module(
                torch.rand(2, 1, 64, 64)
            )  # draws by no keys any more, which were of four pictures
        gradients = {
            f"{name} gradient": parameter.grad for name, parameter in module.named_parameters()
        }
        found.append(({**module.state_dict(), **gradients}, sum(sizes)))
    assert_same(found[0][0], found[1][0])
    assert found[1][1] < (1 if isinstance(generator, ResNet18UNetConfig) else 0.8) * found[0][1]


def test_synchronised_statistics_are_of_all_processes() -> None:
    alone, together = (
        dataclasses.replace(GAMES["bce"], batch_size=8, sync_batch_norm=sync)
        for sync in (False, True)
    )
    assert [num_normalised(alone, world, parts) for world, parts in ((1, 1), (4, 1), (4, 2))] == [
        8,
        2,
        1,
    ]
    assert [
        num_normalised(together, world, parts) for world, parts in ((1, 1), (4, 1), (4, 2))
    ] == [8, 8, 4]


@pytest.mark.parametrize(
    ("name", "batch_size", "accumulate", "passes"),
    [
        ("drouilhet_gan", 1, 1, False),
        ("drouilhet_gan", 2, 2, False),
        ("drouilhet_gan", 2, 1, True),
        ("nampouri_resnet18", 1, 1, False),
        ("arun_wgan_gp", 1, 1, True),
    ],
)
def test_one_value_a_channel_is_refused_at_the_door(
    name: str, batch_size: int, accumulate: int, passes: bool
) -> None:
    """Five halvings of 32 px leave one pixel, of which BatchNorm has no variance; arun's own batch is one picture."""
    recipe = scaled_down(without_downloads(get_recipe(name)), 32, 4)
    deeper = ["generator.levels=5"] if name == "drouilhet_gan" else []
    recipe = override(recipe, [*deeper, f"batch_size={batch_size}"])
    layer, drawn = nn.Conv2d(1, 1, 1), torch.get_rng_state()
    with (
        nullcontext()
        if passes
        else pytest.raises(UserError, match="cannot learn from one picture at a time at 32 px")
    ):
        make_networks(
            recipe, layer, layer, Accelerator(cpu=True), ComputeConfig(accumulate=accumulate)
        )
    assert torch.equal(torch.get_rng_state(), drawn)


def test_an_infinity_does_not_stay_in_running_statistics() -> None:
    recipe = recipe_with_dropout()
    pair = networks(recipe)
    for step, bad in enumerate((0.0, math.inf)):
        before = [state(network) for network in pair]
        batch = pictures(2, step)
        batch.L[0, 0, 0, 0] += bad
        batch = Batch(batch.L.float(), batch.colour.float(), batch.mix.float())
        with restore_finite_bn_stats(*(network.module for network in pair)):
            train_step(
                *pair,
                recipe,
                [lambda fake, batch: (fake - batch.colour).abs().mean()],
                batch,
                step,
                0.0,
            )
    for network, good in zip(pair, before, strict=True):
        assert any("running_mean" in name for name in good)
        assert_same(
            {name: value for name, value in state(network).items() if "num_batches" not in name},
            {name: value for name, value in good.items() if "num_batches" not in name},
        )


@pytest.mark.parametrize("make", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_untracked_statistics_stay(make: type[nn.BatchNorm2d]) -> None:
    module = make(2)
    with frozen_bn_stats(module):
        y = module(torch.randn(4, 2, 3, 3))
    assert module.num_batches_tracked is not None
    assert module.num_batches_tracked.item() == 0
    assert y.mean().item() == pytest.approx(0, abs=1e-6)
    assert module.running_mean is not None
    assert module.running_mean.tolist() == [0, 0]
    module(torch.ones(4, 2, 3, 3))
    assert module.running_mean.tolist() == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize(
    "change", [{"channels_last": True}, {"fused_adam": True}, {"recompute": True}]
)
def test_engines_take_the_same_steps(change: dict[str, bool]) -> None:
    recipe = recipe_with_dropout()
    measures = [lambda fake, batch: (fake - batch.colour).abs().mean()]
    found = []
    for compute in (ComputeConfig(), ComputeConfig(**change)):
        pair = networks(recipe, compute)
        for step in range(2):
            batch = pictures(2, step)
            batch = Batch(batch.L.float(), batch.colour.float(), batch.mix.float())
            losses = train_step(*pair, recipe, measures, batch, step, 0.0)
        found.append(losses)
    for name, value in found[0].items():
        assert found[1][name].item() == pytest.approx(value.item(), rel=1e-4), name


def test_norms_are_of_gradients_before_clipping() -> None:
    """The gradient of sum(W x) is x, whatever W."""
    network = TrainableNetwork(nn.Linear(2, 1, bias=False), Adam(clip=0.1), Accelerator(cpu=True))
    for x in ([3.0, 4.0], [0.0, 7.0]):
        network.backward(network(torch.tensor([x])).sum())
        network.update()
    assert network.mean_norm() == pytest.approx((5 + 7) / 2)
    assert network.mean_norm() is None
