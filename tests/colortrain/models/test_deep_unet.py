"""The deep U-Net: parameter counts, shapes, skip connections, valid sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from colortrain.models.deep_unet import DeepUNet, DeepUNetConfig
from colortrain.models.initialise import num_parameters
from colortrain.models.norms import Norm
from colortrain.models.square_critic import SquareCriticConfig


def on_meta(config: DeepUNetConfig | SquareCriticConfig) -> nn.Module:
    with torch.device("meta"):
        return config.build()


@pytest.mark.parametrize(("norm", "count"), [("batch", 15_674_818), ("pixel", 15_671_874)])
def test_parameter_counts(norm: Norm, count: int) -> None:
    assert num_parameters(on_meta(DeepUNetConfig(norm=norm))) == count


def test_shapes_at_256() -> None:
    """64-128-256-512-1024 channels, from full size to 16x16, and back (section 3.1)."""
    network = on_meta(DeepUNetConfig())
    assert isinstance(network, DeepUNet)
    shapes = []
    for block in [*network.encoder, *network.decoder]:
        block.register_forward_hook(
            lambda _, __, output: shapes.append((output.shape[1], output.shape[2]))
        )
    assert network(torch.empty(2, 1, 256, 256, device="meta")).shape == (2, 2, 256, 256)
    down = [(64, 256), (128, 128), (256, 64), (512, 32), (1024, 16)]
    assert shapes == down + down[-2::-1]


@pytest.mark.parametrize("norm", ["batch", "pixel"])
def test_output_is_bounded_and_depends_on_each_skip(norm: Norm) -> None:
    torch.manual_seed(0)
    network = DeepUNetConfig(base_channels=2, levels=3, norm=norm).build().eval()
    L = torch.randn(2, 1, 16, 16)
    plain = network(L)
    assert plain.abs().max() < 1
    for block in list(network.encoder)[:-1]:
        handle = block.register_forward_hook(lambda _, __, output: output + 1)
        assert not torch.equal(network(L), plain)
        handle.remove()


def test_check_size_suggests_a_depth() -> None:
    with pytest.raises(ValueError, match=r"divisible by 16, got 40: set generator\.levels=3"):
        DeepUNetConfig().check_size(40)
