"""nazeri's networks: the counts of the authors' code, every layer's shape, "same" padding, He's starting weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from colortrain.losses.adversarial import BCE
from colortrain.losses.reconstruction import L1, L2
from colortrain.models.fully_convolutional import (
    Expand,
    FullyConvolutional,
    FullyConvolutionalConfig,
    SameCriticConfig,
    he_init,
    same_conv,
)
from colortrain.models.initialise import num_parameters
from colortrain.recipe import override
from colortrain.recipes import get_recipe
from shards.errors import UserError

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


@pytest.mark.parametrize(
    ("name", "generator", "critic"),
    [
        ("nazeri_gan", 16_654_851, 2_767_553),
        ("nazeri_unet_l2", 16_654_851, 2_767_553),
        ("nazeri_gan_places", 42_023_811, 2_767_553),
    ],
)
def test_counts_of_the_authors_code(name: str, generator: int, critic: int) -> None:
    recipe = get_recipe(name)
    with torch.device("meta"):
        assert num_parameters(recipe.generator.build()) == generator
        assert num_parameters(recipe.critic.build()) == critic


def test_the_papers_first_layer_has_no_norm() -> None:
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
def test_critic_map_is_an_eighth(size: int, side: int) -> None:
    pictures = (
        torch.empty(2, 1, size, size, device="meta"),
        torch.empty(2, 3, size, size, device="meta"),
    )
    assert on_meta(SameCriticConfig())(*pictures).shape == (2, 1, side, side)


@pytest.mark.parametrize(
    ("levels", "first_width", "size"), [(1, 1, 8), (3, 2, 32), (4, 2, 48), (7, 1, 256), (2, 8, 8)]
)
def test_thin_generators_keep_the_size(levels: int, first_width: int, size: int) -> None:
    config = FullyConvolutionalConfig(base_channels=2, levels=levels, first_width=first_width)
    config.check_size(size)
    assert on_meta(config)(torch.empty(1, 1, size, size, device="meta")).shape == (1, 3, size, size)


def test_same_padding_is_tensorflows() -> None:
    """A kernel of ones counts what it covers: one pixel before and two after at stride 1, one on both sides at 2."""
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
def test_he_init(layer: nn.Conv2d | nn.ConvTranspose2d, connections: int) -> None:
    """Half the variance of ReLU's unit normal input comes out doubled: 1 again, in the middle of a large picture."""
    torch.manual_seed(0)
    he_init(layer)
    assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / connections), rel=0.02)
    assert layer.bias is not None
    assert not layer.bias.any()
    with torch.no_grad():
        output = layer(torch.randn(2, layer.in_channels, 24, 24).relu())[..., 4:-4, 4:-4]
    assert float(output.square().mean()) == pytest.approx(1, rel=0.1)


def test_dropout_stands_in_the_first_decoder_blocks() -> None:
    def where(name: str) -> list[bool]:
        config = get_recipe(name).generator
        network = on_meta(config)  # type: ignore[arg-type]
        return [
            isinstance(m.dropout, nn.Dropout) for m in network.modules() if isinstance(m, Expand)
        ]

    assert where("nazeri_gan") == [True] * 2 + [False] * 2
    assert where("nazeri_gan_places") == [True] * 3 + [False] * 4
    assert where("nazeri_unet_l2") == [False] * 4


def test_output_is_bounded_and_depends_on_each_skip() -> None:
    torch.manual_seed(0)
    network = FullyConvolutionalConfig(base_channels=4).build().eval()
    assert isinstance(network, FullyConvolutional)
    L = torch.randn(2, 1, 32, 32)
    plain = network(L)
    assert plain.abs().max() < 1
    head = 8  # input channels of the 1x1 head: the first four are the full-resolution skip
    assert network.head.in_channels == head
    for place, expand in enumerate(network.decoder):
        zeroed = expand.register_forward_hook(lambda _, __, output: output * _but_the_skip(output))
        assert not torch.equal(network(L), plain), f"decoder block {place} ignores its skip"
        zeroed.remove()


def _but_the_skip(output: torch.Tensor) -> torch.Tensor:
    half = output.shape[1] // 2
    return (torch.arange(2 * half) >= half).float().view(-1, 1, 1)


def test_recipes_as_published() -> None:
    gan, places = get_recipe("nazeri_gan"), get_recipe("nazeri_gan_places")
    assert [(r.size, r.batch_size, r.epochs) for r in (gan, places)] == [
        (32, 128, 200),
        (256, 16, 20),
    ]  # table 1
    for recipe in (gan, places):
        recipe.check()
        assert recipe.generator_adam == recipe.critic_adam
        assert (recipe.generator_adam.lr, recipe.generator_adam.betas[0]) == (2e-4, 0.5)  # 3.3
        assert recipe.plateau.factor == 0.1
        assert recipe.objective.adversarial == BCE(real_label=0.9, fake_label=0.0)
        assert recipe.objective.adversarial_weight.at(0) == 1
        assert [(type(t), t.weight.at(0)) for t in recipe.objective.reconstruction] == [(L1, 100)]
        assert (recipe.n_critic, recipe.n_generator) == (1, 1)


def test_the_baseline_has_no_game() -> None:
    recipe = get_recipe("nazeri_unet_l2")
    recipe.check()
    assert [(type(t), t.weight.at(0)) for t in recipe.objective.reconstruction] == [(L2, 1)]
    assert recipe.objective.adversarial_weight.at(0) == 0
    assert recipe.objective.critic_from > recipe.epochs


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            "size=40",
            r"4 levels need a size that is 16 times 2 or more, got 40: set generator\.levels=3",
        ),
        ("size=16", r"got 16: set generator\.levels=3"),
        ("size=33", "a power of two"),
        ("critic.inputs=3", "set critic.inputs"),
    ],
)
def test_what_does_not_fit_is_named(setting: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        override(get_recipe("nazeri_gan"), [setting]).check()


@pytest.mark.parametrize(
    "setting", ["generator.base_channels=0", "generator.levels=0", "generator.dropout=1"]
)
def test_impossible_generators_are_refused(setting: str) -> None:
    with pytest.raises(UserError, match=r"generator\."):
        override(get_recipe("nazeri_gan"), [setting])
