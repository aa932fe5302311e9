"""Weight initialisation and parameter counts."""

from __future__ import annotations

import torch

from colortrain.models.pix2pix import UNetConfig


def test_weights_start_as_published() -> None:
    torch.manual_seed(0)
    network = UNetConfig().build()
    tensors = network.state_dict()
    weight = tensors["encoder.4.conv.weight"]
    assert abs(weight.mean().item()) < 1e-4
    assert abs(weight.std().item() - 0.02) < 1e-4
    assert abs(tensors["decoder.2.norm.weight"].mean().item() - 1) < 5e-3
    assert network.head.bias is not None
    assert network.head.bias.abs().max() == 0
