"""The small classifier: parameter count, features, and residual blocks."""

from __future__ import annotations

import torch
from torch import nn

from colortrain.models.classifier import Block, Classifier
from colortrain.models.initialise import num_parameters


def test_parameter_count_by_hand() -> None:
    def block(inputs: int, outputs: int, shortcut: bool) -> int:
        return 9 * outputs * (inputs + outputs) + 4 * outputs + shortcut * inputs * outputs

    stem = 27 * 24 + 2 * 24
    body = block(24, 48, True) + block(48, 96, True) + block(96, 96, True)
    assert num_parameters(Classifier()) == stem + body + 97 * 10


def test_features_are_averaged_maps_and_give_the_logits() -> None:
    torch.manual_seed(0)
    network, rgb = Classifier(width=4, classes=7).eval(), torch.rand(3, 3, 32, 32)
    features = network.features(rgb)
    assert features.shape == (3, 16)
    maps = network.body(network.stem((rgb - 0.5) / 0.25))
    assert maps.shape == (3, 16, 4, 4)
    torch.testing.assert_close(features, maps.flatten(2).mean(2))
    torch.testing.assert_close(network(rgb), network.head(features))
    assert network(rgb).shape == (3, 7)


def test_block_adds_its_input() -> None:
    """With the last norm's weights at zero, the block is ReLU of its shortcut."""
    block = Block(4, 4, 1).eval()
    assert isinstance(block.shortcut, nn.Identity)
    nn.init.zeros_(dict(block.named_parameters())["body.4.weight"])
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), x.relu())
