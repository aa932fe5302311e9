"""arun: the ResU-Net and the global critic against the paper's figures, and what the critic is to the generator."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from colortrain.distributed.setup import make_accelerator
from colortrain.models.global_critic import GlobalCriticConfig
from colortrain.models.initialise import num_parameters
from colortrain.models.res_unet import ResBlock, ResUNet, ResUNetConfig
from colortrain.recipes import get_recipe
from colortrain.runs.folder import open_data
from colortrain.training.trainer import Trainer
from tests.support.small_shard_set import small_set
from tests.support.thin_recipes import thin


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
    """What each layer gives out in one pass, without the batch."""
    shapes: list[tuple[int, ...]] = []
    for layer in layers:
        layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    network(*inputs)
    return shapes


def test_generator_count_by_hand() -> None:
    """Two bias-free 3x3, two BatchNorms and a biased 1x1 a block; 1x1 with bias at the end."""

    def block(inputs: int, outputs: int) -> int:
        return 9 * outputs * (inputs + outputs) + 4 * outputs + outputs * (inputs + 1)

    down = block(1, 64) + block(64, 128) + block(128, 256) + block(256, 512)
    up = block(512 + 256, 256) + block(256 + 128, 128) + block(128 + 64, 64)
    assert num_parameters(res_unet()) == down + up + 130 == 8_216_194


def test_generator_shapes_at_224() -> None:
    """Figure 1 and section II-C: 64 at 224 px, 128, 256, a bridge of 512 at 28 px, and back."""
    network = res_unet()
    layers = [*network.encoder, network.bridge, *network.decoder, network.head]
    shapes = shapes_of(network, layers, torch.empty(1, 1, 224, 224, device="meta"))
    down = [(64, 224, 224), (128, 112, 112), (256, 56, 56), (512, 28, 28)]
    assert shapes == [*down, *down[-2::-1], (2, 224, 224)]


def test_dropout_follows_every_encoder_block_and_the_bridge_alone() -> None:
    network = res_unet()
    for block in [*network.encoder, network.bridge]:
        assert [type(part) for part in block] == [ResBlock, nn.Dropout2d]
        assert block[1].p == 0.2
    assert not any(isinstance(module, nn.Dropout2d) for module in network.decoder.modules())


def test_a_skip_carries_the_dropout_of_its_block() -> None:
    torch.manual_seed(0)
    network = ResUNetConfig(base_channels=8).build().train()
    seen: list[torch.Tensor] = []
    network.decoder[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.randn(1, 1, 32, 32))
    skip = seen[0][0, 16:]
    assert len(skip) == 8
    assert any(channel.abs().max() == 0 for channel in skip)


def test_block_is_conv_norm_relu_conv_norm_plus_projection_then_relu() -> None:
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
    """What reaches a decoder block beside the skip, against the weights 1/4 and 3/4 written out along one axis."""
    torch.manual_seed(0)
    network = ResUNetConfig(base_channels=4).build().eval()
    bridge: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []
    network.bridge.register_forward_hook(lambda _, __, output: bridge.append(output))
    network.decoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.randn(1, 1, 32, 32))

    def twice(x: torch.Tensor) -> torch.Tensor:
        before, after = torch.cat([x[:1], x[:-1]]), torch.cat([x[1:], x[-1:]])
        return torch.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], dim=1).flatten(0, 1)

    expected = twice(twice(bridge[0][0, 0]).T).T
    torch.testing.assert_close(seen[0][0, 0], expected)


def test_nothing_bounds_the_output() -> None:
    torch.manual_seed(0)
    network = ResUNetConfig(base_channels=4).build().eval()
    with torch.no_grad():
        network.head.weight.mul_(1000)
        made = network(torch.rand(2, 1, 32, 32))
    assert made.max() > 1.5
    assert made.min() < -0.5


@pytest.mark.parametrize(
    ("size", "fits"), [(8, False), (16, True), (36, False), (40, True), (224, True)]
)
def test_generator_says_which_sizes_fit(size: int, fits: bool) -> None:
    config = ResUNetConfig(base_channels=2)
    if not fits:
        with pytest.raises(ValueError, match="3 levels need a size that is 8 times 2 or more"):
            config.check_size(size)
        return
    config.check_size(size)
    assert config.build().train()(torch.rand(1, 1, size, size)).shape == (
        1,
        2,
        size,
        size,
    )  # one picture, BatchNorm


def test_critic_count_shapes_and_norms() -> None:
    """Figure 2: 64, 128, 256 and 512 channels, each half the size, then one number."""
    network = on_meta(GlobalCriticConfig())
    assert num_parameters(network) == 2_757_057
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    pictures = (
        torch.empty(2, 1, 224, 224, device="meta"),
        torch.empty(2, 2, 224, 224, device="meta"),
    )
    shapes = shapes_of(network, [*convolutions, network], *pictures)
    assert shapes == [(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (1,)]
    assert [type(layer).__name__ for layer in network.get_submodule("layers").children()] == [
        "Conv2d",
        "LeakyReLU",
        *["Conv2d", "InstanceNorm2d", "LeakyReLU"] * 3,
    ]


def test_critic_scores_are_unbounded_and_each_picture_has_its_own() -> None:
    torch.manual_seed(0)
    network = GlobalCriticConfig(base_channels=4).build()
    L, colour = torch.rand(3, 1, 32, 32), torch.rand(3, 2, 32, 32)
    with torch.no_grad():
        scores = network(L, colour)
        torch.testing.assert_close(scores[1:2], network(L[1:2], colour[1:2]))
        network.head.weight.mul_(1e4)
        assert network(L, colour).abs().max() > 10
    assert scores.shape == (3, 1)


def test_critic_says_which_sizes_fit() -> None:
    config = GlobalCriticConfig(base_channels=2)
    config.check_size(32)
    config.build()(torch.rand(1, 1, 32, 32), torch.rand(1, 2, 32, 32))
    with pytest.raises(ValueError, match="at least 32 px, got 31"):
        config.check_size(31)


@pytest.mark.parametrize(
    ("name", "heard"), [("arun_wgan_gp", False), ("arun_wgan_gp_adversarial", True)]
)
def test_the_critic_moves_the_generator_only_where_the_abstract_is_read(
    name: str, heard: bool, tmp_path: Path
) -> None:
    """Beside two different critics, equation 6 gives one and the same generator, bit for bit."""
    recipe, shards = thin(get_recipe(name)), small_set(tmp_path / "shards", count=4)
    generators = []
    for channels in (4, 6):
        critic = dataclasses.replace(GlobalCriticConfig(), base_channels=channels)
        trainer = Trainer(
            dataclasses.replace(recipe, critic=critic),
            open_data(shards, recipe),
            tmp_path / f"{channels}",
            make_accelerator(),
        )
        trainer.train()
        generators.append(trainer.generator.module.state_dict())
    same = all(torch.equal(value, generators[1][name]) for name, value in generators[0].items())
    assert same == (not heard)


def test_as_published() -> None:
    recipe = get_recipe("arun_wgan_gp")
    assert recipe.total_images(5000) // recipe.batch_size == 750_000
    assert recipe.objective.adversarial_weight.at(0) == 0
    penalties = recipe.objective.penalties
    assert [(p.name, p.weight.at(0), p.points, p.wrt) for p in penalties] == [
        ("gp", 10, "interpolated", "colour"),
        ("r1", 10, "interpolated", "colour"),
    ]
    other = get_recipe("arun_wgan_gp_adversarial")
    assert other.objective.adversarial_weight.at(0) == 1
    assert dataclasses.replace(other, name=recipe.name, objective=recipe.objective) == recipe
