"""nazeri's networks: shapes, "same" padding, He's initialisation, skip connections."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from colortrain.models.fully_convolutional import (
    FullyConvolutional,
    FullyConvolutionalConfig,
    SameCriticConfig,
    he_init,
    same_conv,
)
from colortrain.models.initialise import num_parameters
from colortrain.recipes import get_recipe

CIFAR_LAYERS = [
    (64, 32),
    (128, 16),
    (256, 8),
    (512, 4),
    (512, 2),
    (512, 4),
    (256, 8),
    (128, 16),
    (64, 32),
]


PLACES_LAYERS = [  # figure 2: 256 px down to 2, and up again
    *[(64, 256), (64, 128), (128, 64), (256, 32), (512, 16), (512, 8), (512, 4), (512, 2)],
    *[(512, 4), (512, 8), (512, 16), (256, 32), (128, 64), (64, 128), (64, 256)],
]


def on_meta(config: FullyConvolutionalConfig | SameCriticConfig) -> nn.Module:
    with torch.device("meta"):
        return config.build()


def test_first_norm_false_removes_one_batch_norm() -> None:
    network = on_meta(FullyConvolutionalConfig(first_norm=False))
    assert num_parameters(network) == 16_654_851 - 2 * 64


@pytest.mark.parametrize(
    ("name", "size", "layers"),
    [("nazeri_gan", 32, CIFAR_LAYERS), ("nazeri_gan_places", 256, PLACES_LAYERS)],
)
def test_shapes_of_every_layer(name: str, size: int, layers: list[tuple[int, int]]) -> None:
    config = get_recipe(name).generator
    assert isinstance(config, FullyConvolutionalConfig)
    network = on_meta(config)
    shapes = []
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(
                lambda _, __, output: shapes.append((output.shape[1], output.shape[2]))
            )
    assert network(torch.empty(2, 1, size, size, device="meta")).shape == (2, 3, size, size)
    assert shapes == layers


@pytest.mark.parametrize(("size", "side"), [(32, 4), (256, 32)])
def test_critic_map_is_an_eighth_of_the_image(size: int, side: int) -> None:
    images = (
        torch.empty(2, 1, size, size, device="meta"),
        torch.empty(2, 3, size, size, device="meta"),
    )
    assert on_meta(SameCriticConfig())(*images).shape == (2, 1, side, side)


@pytest.mark.parametrize(
    ("levels", "first_width", "size"), [(1, 1, 8), (3, 2, 32), (4, 2, 48), (7, 1, 256), (2, 8, 8)]
)
def test_output_has_the_size_of_the_input(levels: int, first_width: int, size: int) -> None:
    config = FullyConvolutionalConfig(base_channels=2, levels=levels, first_width=first_width)
    config.check_size(size)
    assert on_meta(config)(torch.empty(1, 1, size, size, device="meta")).shape == (1, 3, size, size)


def test_same_padding_equals_tensorflow() -> None:
    """A kernel of ones counts the pixels it covers.

    At stride 1 one pixel is padded before and two after, at stride 2 one on both sides.
    """
    ones = torch.ones(1, 1, 6, 6)
    for stride, line in ((1, [3, 4, 4, 4, 3, 2]), (2, [3, 4, 3])):
        layer = same_conv(1, 1, stride)
        nn.init.ones_(layer[1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(layer[1].bias)  # type: ignore[arg-type]
        expected = torch.outer(torch.tensor(line), torch.tensor(line)).float()
        torch.testing.assert_close(layer(ones)[0, 0], expected)


@pytest.mark.parametrize(
    ("layer", "connections"),
    [(nn.Conv2d(64, 256, 4), 64 * 16), (nn.ConvTranspose2d(256, 64, 4, stride=2), 256 * 4)],
)
def test_he_init_preserves_the_variance(
    layer: nn.Conv2d | nn.ConvTranspose2d, connections: int
) -> None:
    """The mean square of the output is 1 in the middle of a large image.

    ReLU halves the variance of its standard normal input, the layer doubles it.
    """
    torch.manual_seed(0)
    he_init(layer)
    assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / connections), rel=0.02)
    assert layer.bias is not None
    assert not layer.bias.any()
    with torch.no_grad():
        output = layer(torch.randn(2, layer.in_channels, 24, 24).relu())[..., 4:-4, 4:-4]
    assert float(output.square().mean()) == pytest.approx(1, rel=0.1)


def test_output_is_bounded_and_depends_on_each_skip() -> None:
    torch.manual_seed(0)
    network = FullyConvolutionalConfig(base_channels=4).build().eval()
    assert isinstance(network, FullyConvolutional)
    L = torch.randn(2, 1, 32, 32)
    plain = network(L)
    assert plain.abs().max() < 1
    head = 8  # input channels of the 1x1 head: the first four are the full-resolution skip
    assert network.head.in_channels == head
    for index, expand in enumerate(network.decoder):
        zeroed = expand.register_forward_hook(
            lambda _, __, output: output * _zero_for_the_skip(output)
        )
        assert not torch.equal(network(L), plain), f"decoder block {index} ignores its skip"
        zeroed.remove()


def _zero_for_the_skip(output: torch.Tensor) -> torch.Tensor:
    half = output.shape[1] // 2
    return (torch.arange(2 * half) >= half).float().view(-1, 1, 1)
