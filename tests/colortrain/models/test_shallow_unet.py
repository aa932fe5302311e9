"""Shallow U-Nets: counts, shapes, skip connections, dropout, valid sizes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from colortrain.models.initialise import num_parameters
from colortrain.models.shallow_unet import ShallowUNet, ShallowUNetConfig


def on_meta(config: ShallowUNetConfig) -> ShallowUNet:
    with torch.device("meta"):
        return config.build()


def by_hand(depth: int, thick: int) -> int:
    """Return the parameter count: 4x4 layers of widths 64 to 512, 3x3 layers between.

    BatchNorm follows all but the first and the last layer.
    """
    widths = [64 * 2**level for level in range(depth)]
    down = 16 * widths[0] + sum(16 * a * b + 2 * b for a, b in pairwise(widths))
    flat = (2 + 2 * thick) * (9 * widths[-1] ** 2 + 2 * widths[-1])
    up = sum(16 * 2 * b * a + 2 * a for a, b in pairwise(widths)) + 16 * 2 * 64 * 2 + 2
    return down + flat + up


@pytest.mark.parametrize("thick", [0, 3])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_counts_and_shapes_at_256(depth: int, thick: int) -> None:
    """Section VI-A: `depth` encoder and decoder layers with a bottleneck between them.

    Three thick layers are on each side of the bottleneck.
    """
    network = on_meta(ShallowUNetConfig(depth=depth, thick_layers=thick))
    assert num_parameters(network) == by_hand(depth, thick)
    shapes: list[tuple[int, ...]] = []
    for layer in [*network.encoder, *network.bottleneck, *network.decoder, network.head]:
        layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    assert network(torch.empty(2, 1, 256, 256, device="meta")).shape == (2, 2, 256, 256)
    down = [(64 * 2**level, 128 // 2**level, 128 // 2**level) for level in range(depth)]
    assert shapes == [*down, *[down[-1]] * (2 + 2 * thick), *down[-2::-1], (2, 256, 256)]


def test_published_counts() -> None:
    assert num_parameters(on_meta(ShallowUNetConfig())) == 12_985_986
    assert num_parameters(on_meta(ShallowUNetConfig(thick_layers=3))) == 27_147_906


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_output_is_bounded_and_depends_on_each_skip(depth: int) -> None:
    """Section III: the last decoder layer receives the first encoder layer, etc."""
    torch.manual_seed(0)
    network = ShallowUNetConfig(base_channels=4, depth=depth, thick_layers=1).build().eval()
    inputs: list[torch.Tensor] = []
    for up in [*network.decoder, network.head]:
        up.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    skips: list[torch.Tensor] = []
    for down in network.encoder:
        down.register_forward_hook(lambda _, __, output: skips.append(output))
    output = network(torch.randn(2, 1, 32, 32))
    assert output.abs().max() < 1
    for received, skip in zip(inputs[:-1], skips[:0:-1], strict=True):
        assert torch.equal(received[:, -skip.shape[1] :], skip)
    assert torch.equal(inputs[-1][:, -skips[0].shape[1] :], skips[0].relu())


def test_no_dropout_by_default() -> None:
    def rates(config: ShallowUNetConfig) -> list[float]:
        return [module.p for module in on_meta(config).modules() if isinstance(module, nn.Dropout)]

    assert rates(ShallowUNetConfig()) == []
    assert rates(ShallowUNetConfig(dropout=0.5)) == [0.5] * 3


@pytest.mark.parametrize(("size", "fits"), [(16, False), (32, True), (40, False), (48, True)])
def test_check_size(size: int, fits: bool) -> None:
    config = ShallowUNetConfig(base_channels=2, depth=4)
    if fits:
        config.check_size(size)
        assert config.build().train()(torch.randn(1, 1, size, size)).shape == (1, 2, size, size)
    else:
        with pytest.raises(
            ValueError, match="depth=4 requires a size divisible by 16 and at least 32"
        ):
            config.check_size(size)


def test_weights_are_initialised_as_in_pix2pix() -> None:
    torch.manual_seed(0)
    weight = ShallowUNetConfig().build().state_dict()["bottleneck.0.conv.weight"]
    assert abs(weight.std().item() - 0.02) < 1e-4


@pytest.mark.parametrize("depth", [2, 4])
def test_every_level_may_be_thick(depth: int) -> None:
    """Section VI-B: "thicker encoding/decoding layers"."""
    config = ShallowUNetConfig(depth=depth, thick_layers=3, thick_at="levels")
    network = on_meta(config)
    widths = [64 * 2**level for level in range(depth)]
    blocks = sum(9 * width**2 + 2 * width for width in [*widths, *widths[:-1]])
    assert num_parameters(network) == by_hand(depth, thick=0) + 3 * blocks
    if depth == 4:
        assert num_parameters(network) == 24_717_186
    assert len(network.bottleneck) == 2
    assert network(torch.empty(2, 1, 64, 64, device="meta")).shape == (2, 2, 64, 64)


def test_skips_start_after_the_thick_layers_of_a_level() -> None:
    torch.manual_seed(0)
    config = ShallowUNetConfig(base_channels=4, depth=2, thick_layers=1, thick_at="levels")
    network = config.build().eval()
    received: list[torch.Tensor] = []
    network.decoder[0].register_forward_pre_hook(lambda _, args: received.append(args[0]))
    network.head.register_forward_pre_hook(lambda _, args: received.append(args[0]))
    outputs: list[torch.Tensor] = []
    for thick in [*network.thick_encoder, *network.thick_decoder]:
        thick.register_forward_hook(lambda _, __, output: outputs.append(output))
    network(torch.randn(1, 1, 32, 32))
    first, second, decoded = outputs
    assert torch.equal(received[0][:, -8:], second)
    assert torch.equal(received[1], torch.cat([decoded, first], 1).relu())


def test_thin_networks_have_the_weights_of_earlier_versions() -> None:
    names = {name.split(".")[0] for name in on_meta(ShallowUNetConfig(thick_layers=3)).state_dict()}
    assert names == {"encoder", "bottleneck", "decoder", "head"}
