"""Keyed dropout and BatchNorm statistics: masks per position, frozen and restored.

`tests/colortrain/training/test_step.py` tests the same layers in training steps.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from colortrain.models.batch_invariant import (
    KeyedDropout,
    convert_sync_batch_norm,
    dropout_keys,
    frozen_bn_stats,
    image_keys,
    mixes_images,
    replace_dropout,
    restore_finite_bn_stats,
)
from colortrain.models.norms import MinibatchStddev
from colortrain.models.square_critic import SquareCriticConfig
from colortrain.recipes import RECIPES, get_recipe
from tests.support.scaled_recipes import scaled

CPU = torch.device("cpu")


def test_keys_depend_on_seed_step_and_position_only() -> None:
    keys = image_keys(7, 3, 0, 1000)
    assert keys.dtype == torch.int32
    assert len(keys.unique()) == 1000
    assert torch.equal(image_keys(7, 3, 400, 100), keys[400:500])
    assert not (image_keys(8, 3, 0, 1000) == keys).any()
    assert not (image_keys(7, 4, 0, 1000) == keys).any()


def test_keys_are_stable() -> None:
    """A change of these values would change every run with dropout."""
    assert image_keys(0, 0, 0, 3).tolist() == [-98494823, 522523905, 793925548]


@pytest.mark.parametrize("whole_channels", [False, True])
def test_a_mask_does_not_depend_on_the_rest_of_the_batch(whole_channels: bool) -> None:
    layer = KeyedDropout(0.5, layer=2, whole_channels=whole_channels).train()
    x, keys = torch.ones(6, 8, 4, 4), image_keys(0, 0, 0, 6)
    with dropout_keys(layer, keys):
        together = layer(x)
    with dropout_keys(layer, keys[3:]):
        assert torch.equal(layer(x[3:]), together[3:])
    assert layer.seeds is None
    assert set(together.unique().tolist()) == {0.0, 2.0}
    per_channel = together.flatten(2)
    constant = bool((per_channel == per_channel[..., :1]).all())
    assert constant == whole_channels


def test_replaced_layers_are_numbered_and_keep_rate_kind_and_mode() -> None:
    module = nn.Sequential(nn.Dropout(0.1), nn.Sequential(nn.Dropout2d(0.2).eval()), nn.ReLU())
    replaced = [m for m in replace_dropout(module).modules() if isinstance(m, KeyedDropout)]
    facts = [(m.p, m.layer, m.whole_channels, m.training) for m in replaced]
    assert facts == [(0.1, 0, False, True), (0.2, 1, True, False)]


def test_frozen_statistics_do_not_change_and_normalise_by_the_batch() -> None:
    norm, x = nn.BatchNorm2d(3).train(), torch.randn(4, 3, 5, 5) + 2
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with frozen_bn_stats(norm):
        y = norm(x)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    norm(x)
    assert norm.num_batches_tracked == 1
    assert norm.momentum == 0.1


def test_only_statistics_that_are_not_finite_are_restored() -> None:
    norm = nn.BatchNorm2d(2).train()
    x = torch.randn(4, 2, 3, 3)
    x[0, 1, 0, 0] = math.inf
    with restore_finite_bn_stats(norm):
        norm(x)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.running_mean[0] == pytest.approx(0.1 * float(x[:, 0].mean()), rel=1e-5)
    assert (norm.running_mean[1], norm.running_var[1]) == (0, 1)


def test_without_processes_batch_norm_is_not_converted() -> None:
    module = nn.Sequential(nn.BatchNorm2d(2))
    assert convert_sync_batch_norm(module, CPU) is module
    assert type(module[0]) is nn.BatchNorm2d


@pytest.mark.parametrize(
    ("layer", "mixes"),
    [(nn.BatchNorm2d(2), True), (MinibatchStddev(), True), (nn.InstanceNorm2d(2), False)],
)
def test_layers_that_mix_images(layer: nn.Module, mixes: bool) -> None:
    assert mixes_images(nn.Sequential(nn.ReLU(), layer)) == mixes


def dropped(
    whole_channels: bool = False, p: float = 0.5, layer: int = 0, first: int = 0, step: int = 0
) -> Tensor:
    """Return which of (4, 32, 16, 16) ones are dropped; the images start at `first`."""
    module = KeyedDropout(p, layer, whole_channels)
    with dropout_keys(module, image_keys(7, step, first, 4)):
        return module(torch.ones(4, 32, 16, 16)) == 0


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_masks_are_independent_bernoulli_draws(p: float) -> None:
    """Fractions of zeros, and of common zeros, are within five standard deviations.

    Common zeros are those of two images, layers, steps, channels or columns.
    """
    drops = dropped(p=p)
    pairs = (
        [drops[0], drops[1]],
        [drops, dropped(p=p, layer=1)],
        [drops, dropped(p=p, step=1)],
        [drops[:, 1:], drops[:, :-1]],
        [drops[..., 1:], drops[..., :-1]],
    )
    for one, other in pairs:
        for events, chance in ((one, p), (one & other, p * p)):
            deviation = math.sqrt(chance * (1 - chance) / events.numel())
            assert abs(events.double().mean().item() - chance) < 5 * deviation


def test_masks_follow_the_position_in_the_global_batch() -> None:
    assert torch.equal(dropped(first=0)[2:], dropped(first=2)[:2])
    channels = dropped(whole_channels=True)
    assert torch.equal(channels.all((2, 3)), channels.any((2, 3)))
    assert 0 < channels.double().mean() < 1


def test_kept_values_are_scaled() -> None:
    module = KeyedDropout(0.2, 0, False)
    x = torch.randn(4, 3, 8, 8, requires_grad=True)
    with dropout_keys(module, image_keys(0, 0, 0, 4)):
        y = module(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(y[y != 0], x[y != 0] / 0.8)
    assert torch.equal(x.grad != 0, y != 0)


def test_without_keys_dropout_is_that_of_torch() -> None:
    """Outside training steps it draws from torch's generator."""
    x = torch.ones(2, 4, 8, 8)
    for keyed, plain in (
        (KeyedDropout(0.5, 3, False), F.dropout),
        (KeyedDropout(0.5, 3, True), F.dropout2d),
    ):
        torch.manual_seed(5)
        y = keyed(x)
        torch.manual_seed(5)
        assert torch.equal(y, plain(x, 0.5))
        assert torch.equal(keyed.eval()(x), x)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_replacing_dropout_changes_no_names(name: str) -> None:
    with torch.device("meta"):
        generator = scaled(get_recipe(name)).generator.build()
        before = list(generator.state_dict())
        rates = [m.p for m in generator.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)]
        replace_dropout(generator)
    replaced = [module for module in generator.modules() if isinstance(module, KeyedDropout)]
    assert list(generator.state_dict()) == before
    assert [module.p for module in replaced] == rates
    assert len({module.layer for module in replaced}) == len(replaced)


@pytest.mark.parametrize("make", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_frozen_statistics_are_updated_again_afterwards(make: type[nn.BatchNorm2d]) -> None:
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


def test_critics_that_mix_images_are_detected() -> None:
    kinds = {"batch": True, "instance": False, "none": False, "pixel": False}
    for norm, mixes in kinds.items():
        assert mixes_images(SquareCriticConfig(base_channels=4, norm=norm).build()) == mixes  # type: ignore[arg-type]
    deviates = SquareCriticConfig(base_channels=4, norm="none", minibatch_stddev=True)
    assert mixes_images(deviates.build())
