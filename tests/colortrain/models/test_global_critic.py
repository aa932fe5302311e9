"""The global critic: parameter count, shapes, scores, valid sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from colortrain.models.global_critic import GlobalCriticConfig
from colortrain.models.initialise import num_parameters
from colortrain.models.res_unet import ResUNetConfig


def on_meta(config: ResUNetConfig | GlobalCriticConfig) -> nn.Module:
    with torch.device("meta"):
        return config.build()


def shapes_of(
    network: nn.Module, layers: list[nn.Module], *inputs: torch.Tensor
) -> list[tuple[int, ...]]:
    """Return the output shape of each layer in one forward pass, without the batch."""
    shapes: list[tuple[int, ...]] = []
    for layer in layers:
        layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    network(*inputs)
    return shapes


def test_parameter_count_shapes_and_norms() -> None:
    """Figure 2: 64 to 512 channels, each at half the size, then one number."""
    network = on_meta(GlobalCriticConfig())
    assert num_parameters(network) == 2_757_057
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    images = (
        torch.empty(2, 1, 224, 224, device="meta"),
        torch.empty(2, 2, 224, 224, device="meta"),
    )
    shapes = shapes_of(network, [*convolutions, network], *images)
    assert shapes == [(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (1,)]
    assert [type(layer).__name__ for layer in network.get_submodule("layers").children()] == [
        "Conv2d",
        "LeakyReLU",
        *["Conv2d", "InstanceNorm2d", "LeakyReLU"] * 3,
    ]


def test_scores_are_unbounded_and_independent_of_other_images() -> None:
    torch.manual_seed(0)
    network = GlobalCriticConfig(base_channels=4).build()
    L, colour = torch.rand(3, 1, 32, 32), torch.rand(3, 2, 32, 32)
    with torch.no_grad():
        scores = network(L, colour)
        torch.testing.assert_close(scores[1:2], network(L[1:2], colour[1:2]))
        network.head.weight.mul_(1e4)
        assert network(L, colour).abs().max() > 10
    assert scores.shape == (3, 1)


def test_check_size() -> None:
    config = GlobalCriticConfig(base_channels=2)
    config.check_size(32)
    config.build()(torch.rand(1, 1, 32, 32), torch.rand(1, 2, 32, 32))
    with pytest.raises(ValueError, match="at least 32 px, got 31"):
        config.check_size(31)
