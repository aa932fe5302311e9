"""The pix2pix U-Net: parameter counts, shapes, dropout, skip connections."""

from __future__ import annotations

import pytest
import torch

from colortrain.models.initialise import num_parameters
from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.pix2pix import UNet, UNetConfig


def on_meta(config: UNetConfig | PatchCriticConfig) -> torch.nn.Module:
    with torch.device("meta"):
        return config.build()


def test_parameter_counts() -> None:
    network = on_meta(UNetConfig())
    assert isinstance(network, UNet)
    assert num_parameters(network) == 54_410_370
    assert num_parameters(network.encoder) == 19_536_128
    assert [num_parameters(down) for down in network.encoder][::7] == [1_024, 4_194_816]
    assert num_parameters(network.head) == 4_098


def test_shapes_at_256() -> None:
    """Nampouri figures 10 and 11: 64 channels at 128 px to 512 at 1 px, and back."""
    network = on_meta(UNetConfig())
    assert isinstance(network, UNet)
    shapes = []
    for layer in [*network.encoder, *network.decoder]:
        layer.register_forward_hook(
            lambda _, __, output: shapes.append((output.shape[1], output.shape[2]))
        )
    assert network(torch.empty(2, 1, 256, 256, device="meta")).shape == (2, 2, 256, 256)
    widths = [64, 128, 256, 512, 512, 512, 512, 512]
    down = [(width, 256 // 2 ** (i + 1)) for i, width in enumerate(widths)]
    assert shapes == down + [(width, size) for width, size in down[-2::-1]]


def test_dropout_is_in_the_first_three_decoder_blocks() -> None:
    network = on_meta(UNetConfig())
    assert isinstance(network, UNet)
    assert [isinstance(up.dropout, torch.nn.Dropout) for up in network.decoder] == [True] * 3 + [
        False
    ] * 4


@pytest.mark.parametrize(("size", "levels"), [(32, 5), (64, 6), (64, 3), (256, 8)])
def test_output_has_the_size_of_the_input(size: int, levels: int) -> None:
    config = UNetConfig(base_channels=2, levels=levels)
    config.check_size(size)
    assert on_meta(config)(torch.empty(2, 1, size, size, device="meta")).shape == (2, 2, size, size)


def test_output_is_bounded_and_depends_on_each_skip() -> None:
    torch.manual_seed(0)
    network = UNetConfig(base_channels=4, levels=5).build().eval()
    L = torch.randn(2, 1, 32, 32)
    plain = network(L)
    assert plain.abs().max() < 1
    for down in network.encoder[:-1]:  # changing an unused skip would have no effect
        handle = down.register_forward_hook(lambda _, __, output: output + 1)
        assert not torch.equal(network(L), plain)
        handle.remove()
