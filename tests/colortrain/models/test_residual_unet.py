"""The U-Net over a colour grid: the grid, the mean under softmax, the kept logits."""

from __future__ import annotations

import pytest
import torch

from colortrain.models.residual_unet import ResidualUNet, ResidualUNetConfig, colours_in_gamut


def small(**settings: object) -> ResidualUNet:
    torch.manual_seed(0)
    return ResidualUNetConfig(base_channels=4, levels=2, **settings).build()  # type: ignore[arg-type]


def test_colours_are_in_the_srgb_gamut() -> None:
    colours = {(float(a), float(b)) for a, b in colours_in_gamut()}
    assert {
        (0, 0),
        (80, 60),
        (-80, 80),
        (80, -100),
    } <= colours  # grey, and near red, green and blue
    assert not {(110, 110), (-110, -110), (-60, -60), (110, 0)} & colours
    assert 200 < len(colours) < 313  # Zhang et al. also count some that clipping moves


def test_initial_output_is_the_mean_colour() -> None:
    network = small(blocks=2)
    torch.nn.init.zeros_(network.head.weight)
    output = network(torch.randn(3, 1, 16, 24))
    mean = torch.from_numpy(colours_in_gamut()).mean(0) / 110
    assert torch.allclose(output, mean.view(1, 2, 1, 1).expand(3, 2, 16, 24), atol=1e-6)


def test_a_low_temperature_selects_the_most_likely_colour() -> None:
    network = small(temperature=1e-3)
    torch.nn.init.zeros_(network.head.weight)
    named = dict(network.named_parameters())
    named["head.bias"].data[7] = 1.0
    expected = torch.from_numpy(colours_in_gamut()[7]) / 110
    assert torch.allclose(network(torch.zeros(1, 1, 8, 8))[0, :, 3, 4], expected, atol=1e-5)


def test_all_weights_get_gradients_and_logits_can_be_taken_once() -> None:
    network = small(blocks=2).train()
    for block in network.modules():  # blocks start as the identity: randomise them
        if isinstance(block, torch.nn.Conv2d):
            torch.nn.init.normal_(block.weight, std=0.1)
    network(torch.randn(2, 1, 8, 8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    with torch.no_grad():  # as when the critic alone is updated
        network(torch.randn(3, 1, 8, 8))
    network.eval()(torch.randn(1, 1, 8, 8))
    assert network.take_logits().shape == (2, len(colours_in_gamut()), 8, 8)
    assert network.logits is None
    with pytest.raises(RuntimeError, match="have been taken already"):
        network.take_logits()
    assert not any("colours" in name or "logits" in name for name in network.state_dict())


def test_check_size() -> None:
    with pytest.raises(ValueError, match="divisible by 8"):
        ResidualUNetConfig(levels=3).check_size(36)
