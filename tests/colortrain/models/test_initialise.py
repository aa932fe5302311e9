"""Weight initialisation and parameter counts."""

from __future__ import annotations

import torch

from colortrain.models.initialise import num_parameters
from colortrain.models.pix2pix import UNetConfig


def test_normal_init_has_the_published_statistics() -> None:
    torch.manual_seed(0)
    network = UNetConfig().build()
    tensors = network.state_dict()
    weight = tensors["encoder.4.conv.weight"]
    assert abs(weight.mean().item()) < 1e-4
    assert abs(weight.std().item() - 0.02) < 1e-4
    assert abs(tensors["decoder.2.norm.weight"].mean().item() - 1) < 5e-3
    assert network.head.bias is not None
    assert network.head.bias.abs().max() == 0


def test_num_parameters_counts_trainable_ones_only() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    assert num_parameters(network) == 6 + 2 + 4
    network[0].requires_grad_(False)
    assert num_parameters(network) == 4
