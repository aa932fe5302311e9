"""The square critic: map size, parameter counts, valid sizes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from colortrain.models.deep_unet import DeepUNetConfig
from colortrain.models.initialise import num_parameters
from colortrain.models.norms import Norm
from colortrain.models.square_critic import SquareCriticConfig


def on_meta(config: DeepUNetConfig | SquareCriticConfig) -> nn.Module:
    with torch.device("meta"):
        return config.build()


@pytest.mark.parametrize(("depth", "side"), [(3, 32), (4, 16), (5, 8)])
def test_map_has_one_score_per_square(depth: int, side: int) -> None:
    images = (
        torch.empty(2, 1, 256, 256, device="meta"),
        torch.empty(2, 2, 256, 256, device="meta"),
    )
    assert on_meta(SquareCriticConfig(depth=depth))(*images).shape == (2, 1, side, side)


def test_parameter_counts() -> None:
    """Kernels 3-64-128-256-512-1.

    BatchNorm adds two numbers per channel, the deviation adds one channel to the last
    layer.
    """
    kernels = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 1
    assert num_parameters(on_meta(SquareCriticConfig(norm="instance"))) == kernels
    assert (
        num_parameters(on_meta(SquareCriticConfig(norm="batch")))
        == kernels + 2 * (128 + 256 + 512)
        == 2_765_633
    )
    assert num_parameters(on_meta(SquareCriticConfig(norm="none"))) == kernels + 128 + 256 + 512
    assert (
        num_parameters(on_meta(SquareCriticConfig(norm="instance", minibatch_stddev=True)))
        == kernels + 16
    )


@pytest.mark.parametrize(
    ("norm", "size", "fits"), [("batch", 16, True), ("instance", 16, False), ("batch", 40, False)]
)
def test_check_size(norm: Norm, size: int, fits: bool) -> None:
    config = SquareCriticConfig(base_channels=2, norm=norm)
    if fits:
        config.check_size(size)
        assert config.build()(
            torch.randn(2, 1, size, size), torch.randn(2, 2, size, size)
        ).shape == (2, 1, 1, 1)
    else:
        with pytest.raises(ValueError, match=r"smaller critic\.depth"):
            config.check_size(size)


def test_minibatch_stddev_changes_every_score() -> None:
    """A score in a batch of one image differs from the same in a batch of several."""
    torch.manual_seed(0)
    critic = SquareCriticConfig(
        base_channels=4, depth=2, norm="none", minibatch_stddev=True
    ).build()
    L, colour = torch.randn(3, 1, 16, 16), torch.randn(3, 2, 16, 16)

    def alone(i: int) -> Tensor:
        return critic(L[i : i + 1], colour[i : i + 1])

    together = critic(L, colour)
    assert all((together[i] - alone(i)).abs().min() > 0 for i in range(3))
