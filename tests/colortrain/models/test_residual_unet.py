"""The network that weighs colours: which colours, how they are mixed, what is remembered; and its cross-entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from colortrain.lab import Batch, SymmetricCodec
from colortrain.losses.colour_bins import ColourBins, cross_entropy, nearest_in_gamut
from colortrain.losses.reconstruction import Resources
from colortrain.models.pix2pix import UNetConfig
from colortrain.models.residual_unet import ResidualUNet, ResidualUNetConfig, colours_in_gamut
from shards.errors import UserError


def small(**settings: object) -> ResidualUNet:
    torch.manual_seed(0)
    return ResidualUNetConfig(base_channels=4, levels=2, **settings).build()  # type: ignore[arg-type]


def test_colours_are_those_that_screens_show() -> None:
    colours = {(float(a), float(b)) for a, b in colours_in_gamut()}
    assert {
        (0, 0),
        (80, 60),
        (-80, 80),
        (80, -100),
    } <= colours  # grey, and near red, green and blue
    assert not {(110, 110), (-110, -110), (-60, -60), (110, 0)} & colours
    assert 200 < len(colours) < 313  # Zhang et al. also count some that clipping moves


def test_starts_as_the_mean_of_its_colours_and_keeps_the_size() -> None:
    network = small(blocks=2)
    torch.nn.init.zeros_(network.head.weight)
    made = network(torch.randn(3, 1, 16, 24))
    mean = torch.from_numpy(colours_in_gamut()).mean(0) / 110
    assert torch.allclose(made, mean.view(1, 2, 1, 1).expand(3, 2, 16, 24), atol=1e-6)


def test_a_low_temperature_takes_the_likeliest_colour() -> None:
    network = small(temperature=1e-3)
    torch.nn.init.zeros_(network.head.weight)
    named = dict(network.named_parameters())
    named["head.bias"].data[7] = 1.0
    expected = torch.from_numpy(colours_in_gamut()[7]) / 110
    assert torch.allclose(network(torch.zeros(1, 1, 8, 8))[0, :, 3, 4], expected, atol=1e-5)


def test_every_weight_hears_of_ab_alone_and_logits_are_of_training() -> None:
    network = small(blocks=2).train()
    for block in network.modules():  # blocks begin as nothing: give them something
        if isinstance(block, torch.nn.Conv2d):
            torch.nn.init.normal_(block.weight, std=0.1)
    network(torch.randn(2, 1, 8, 8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    remembered = network.logits
    assert remembered is not None
    assert remembered.shape == (2, len(colours_in_gamut()), 8, 8)
    network.eval()(torch.randn(1, 1, 8, 8))
    assert network.logits is remembered
    assert not any("colours" in name or "logits" in name for name in network.state_dict())


def test_sizes_that_cannot_pass_are_told() -> None:
    with pytest.raises(ValueError, match="divisible by 8"):
        ResidualUNetConfig(levels=3).check_size(36)


def test_cross_entropy_of_ignorance_and_of_certainty() -> None:
    lookup, count = nearest_in_gamut(), len(colours_in_gamut())
    ab = torch.from_numpy(colours_in_gamut()[:50]).T.reshape(1, 2, 5, 10)
    assert float(cross_entropy(torch.zeros(1, count, 5, 10), ab, lookup)) == pytest.approx(
        math.log(count), rel=1e-5
    )
    sure = (
        torch.nn.functional.one_hot(torch.arange(50).reshape(1, 5, 10), count).permute(0, 3, 1, 2)
        * 50.0
    )
    assert float(cross_entropy(sure, ab, lookup)) == pytest.approx(0, abs=1e-5)


def test_the_target_means_the_true_colour() -> None:
    """The slope of a cross-entropy is softmax - target, so the target can be read off: its mean is the true colour."""
    ab = torch.tensor([3.0, -12.5]).view(1, 2, 1, 1)
    logits = torch.zeros(1, len(colours_in_gamut()), 1, 1, requires_grad=True)
    (slope,) = torch.autograd.grad(cross_entropy(logits, ab, nearest_in_gamut()), logits)
    target = (logits.softmax(1) - slope).flatten()
    assert int((target > 1e-6).sum()) == 4
    assert torch.allclose(target @ torch.from_numpy(colours_in_gamut()), ab.flatten(), atol=1e-4)


def test_colour_bins_ask_for_a_network_that_weighs_colours() -> None:
    network = small().train()
    resources = Resources(
        torch.device("cpu"), SymmetricCodec(), lambda: np.zeros((23, 23)), network
    )
    batch = Batch(torch.zeros(1, 1, 8, 8), torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 1, 1))
    measure = ColourBins().build(resources)
    assert float(measure(network(batch.L), batch).detach()) > 0
    other = Resources(
        torch.device("cpu"),
        SymmetricCodec(),
        resources.histogram,
        UNetConfig(base_channels=2).build(),
    )
    with pytest.raises(UserError, match="weighs colours"):
        ColourBins().build(other)
