"""The ResU-Net: parameter count, shapes, dropout, residual blocks, valid sizes."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from colortrain.models.batch_invariant import KeyedDropout, replace_dropout
from colortrain.models.global_critic import GlobalCriticConfig
from colortrain.models.initialise import num_parameters
from colortrain.models.res_unet import ResBlock, ResUNet, ResUNetConfig


def on_meta(config: ResUNetConfig | GlobalCriticConfig) -> nn.Module:
    with torch.device("meta"):
        return config.build()


def res_unet() -> ResUNet:
    network = on_meta(ResUNetConfig())
    assert isinstance(network, ResUNet)
    return network


def shapes_of(
    network: nn.Module, layers: list[nn.Module], *inputs: torch.Tensor
) -> list[tuple[int, ...]]:
    """Return the output shape of each layer in one forward pass, without the batch."""
    shapes: list[tuple[int, ...]] = []
    for layer in layers:
        layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    network(*inputs)
    return shapes


def test_parameter_count_by_hand() -> None:
    """Each block has two bias-free 3x3, two BatchNorms and a biased 1x1 convolution."""

    def block(inputs: int, outputs: int) -> int:
        return 9 * outputs * (inputs + outputs) + 4 * outputs + outputs * (inputs + 1)

    down = block(1, 64) + block(64, 128) + block(128, 256) + block(256, 512)
    up = block(512 + 256, 256) + block(256 + 128, 128) + block(128 + 64, 64)
    assert num_parameters(res_unet()) == down + up + 130 == 8_216_194


def test_shapes_at_224() -> None:
    """Figure 1 and section II-C: 64 channels at 224 px to 512 at 28 px, and back."""
    network = res_unet()
    layers = [*network.encoder, network.bridge, *network.decoder, network.head]
    shapes = shapes_of(network, layers, torch.empty(1, 1, 224, 224, device="meta"))
    down = [(64, 224, 224), (128, 112, 112), (256, 56, 56), (512, 28, 28)]
    assert shapes == [*down, *down[-2::-1], (2, 224, 224)]


def test_dropout_follows_encoder_blocks_and_the_bridge_only() -> None:
    network = res_unet()
    for block in [*network.encoder, network.bridge]:
        assert [type(part) for part in block] == [ResBlock, nn.Dropout2d]
        assert block[1].p == 0.2
    assert not any(isinstance(module, nn.Dropout2d) for module in network.decoder.modules())


def test_skips_include_the_dropout_of_their_block() -> None:
    torch.manual_seed(0)
    network = ResUNetConfig(base_channels=8).build().train()
    received: list[torch.Tensor] = []
    network.decoder[-1].register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    network(torch.randn(1, 1, 32, 32))
    skip = received[0][0, 16:]
    assert len(skip) == 8
    assert any(channel.abs().max() == 0 for channel in skip)


def test_residual_block_equals_its_definition() -> None:
    torch.manual_seed(0)
    block = ResBlock(3, 5).train()
    x = torch.randn(2, 3, 8, 8)
    w = dict(block.named_parameters())
    h = F.conv2d(x, w["body.0.weight"], padding=1)
    h = F.batch_norm(h, None, None, w["body.1.weight"], w["body.1.bias"], training=True)
    h = F.conv2d(h.relu(), w["body.3.weight"], padding=1)
    h = F.batch_norm(h, None, None, w["body.4.weight"], w["body.4.bias"], training=True)
    expected = (h + F.conv2d(x, w["shortcut.weight"], w["shortcut.bias"])).relu()
    torch.testing.assert_close(block(x), expected)
    assert block(x).min() == 0


def test_upsampling_is_bilinear() -> None:
    """A decoder input equals interpolation with weights 1/4 and 3/4 along each axis."""
    torch.manual_seed(0)
    network = ResUNetConfig(base_channels=4).build().eval()
    bridge: list[torch.Tensor] = []
    received: list[torch.Tensor] = []
    network.bridge.register_forward_hook(lambda _, __, output: bridge.append(output))
    network.decoder[0].register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    network(torch.randn(1, 1, 32, 32))

    def twice(x: torch.Tensor) -> torch.Tensor:
        before, after = torch.cat([x[:1], x[:-1]]), torch.cat([x[1:], x[-1:]])
        return torch.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], dim=1).flatten(0, 1)

    expected = twice(twice(bridge[0][0, 0]).T).T
    torch.testing.assert_close(received[0][0, 0], expected)


def test_output_is_unbounded() -> None:
    torch.manual_seed(0)
    network = ResUNetConfig(base_channels=4).build().eval()
    with torch.no_grad():
        network.head.weight.mul_(1000)
        output = network(torch.rand(2, 1, 32, 32))
    assert output.max() > 1.5
    assert output.min() < -0.5


@pytest.mark.parametrize(
    ("size", "fits"), [(8, False), (16, True), (36, False), (40, True), (224, True)]
)
def test_check_size(size: int, fits: bool) -> None:
    config = ResUNetConfig(base_channels=2)
    if not fits:
        with pytest.raises(
            ValueError, match="levels=3 requires a size divisible by 8 and at least 16"
        ):
            config.check_size(size)
        return
    config.check_size(size)
    assert config.build().train()(torch.rand(1, 1, size, size)).shape == (
        1,
        2,
        size,
        size,
    )  # one image, BatchNorm


def test_a_bridge_of_its_own_follows_four_encoder_widths() -> None:
    """Section II-C, items 1 and 2: 64, 128, 256, 512, then one more block at 512."""
    network = on_meta(ResUNetConfig(own_bridge=True))
    identity_block = 2 * 9 * 512**2 + 4 * 512
    assert num_parameters(network) == 8_216_194 + identity_block == 12_936_834
    assert network(torch.empty(1, 1, 224, 224, device="meta")).shape == (1, 2, 224, 224)
    bridge = network.get_submodule("bridge")
    assert [type(part) for part in bridge.children()] == [ResBlock, nn.Dropout2d] * 2


def test_the_bridges_shortcut_is_the_identity() -> None:
    torch.manual_seed(0)
    block = ResBlock(3, 3, identity=True).train()
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(block(x), (block.body(x) + x).relu())
    with pytest.raises(RuntimeError):
        ResBlock(3, 4, identity=True)(x)


@pytest.mark.parametrize(("unit", "whole"), [("channels", True), ("values", False)])
def test_dropout_is_of_channels_or_of_values(
    unit: Literal["channels", "values"], whole: bool
) -> None:
    """Of a channel in which few values are 0, either all or some are kept."""
    torch.manual_seed(0)
    config = ResUNetConfig(base_channels=8, dropout=0.5, dropout_unit=unit, own_bridge=True)
    network = replace_dropout(config.build()).train()
    layers = [module for module in network.modules() if isinstance(module, KeyedDropout)]
    assert [layer.p for layer in layers] == [0.5] * 5
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    layers[0].register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    network(torch.randn(4, 1, 32, 32))
    before, after = (tensor.flatten(2).ne(0).float().mean(2) for tensor in seen[0])
    kept = (after / before)[before > 2 / 3]
    assert len(kept) > 4
    assert 0 < kept.mean() < 1
    assert ((kept == 0) | (kept == 1)).all() == whole
