"""Drouilhet's networks and recipes: published shapes and numbers, PixelNorm and the minibatch deviation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from colortrain.losses.adversarial import BCE
from colortrain.losses.perceptual import Perceptual
from colortrain.losses.rebalanced import RebalancedL1
from colortrain.models.deep_unet import DeepUNet, DeepUNetConfig
from colortrain.models.initialise import num_parameters
from colortrain.models.norms import MinibatchStddev, Norm, PixelNorm
from colortrain.models.square_critic import SquareCriticConfig
from colortrain.recipes import RECIPES, get_recipe


def on_meta(config: DeepUNetConfig | SquareCriticConfig) -> nn.Module:
    with torch.device("meta"):
        return config.build()


@pytest.mark.parametrize(("norm", "count"), [("batch", 15_674_818), ("pixel", 15_671_874)])
def test_generator_counts(norm: Norm, count: int) -> None:
    assert num_parameters(on_meta(DeepUNetConfig(norm=norm))) == count


def test_generator_shapes_at_256() -> None:
    """64-128-256-512-1024, the first at full size, the bottleneck at 16x16 (section 3.1), and up again."""
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


def test_a_size_the_generator_cannot_take_says_what_fits() -> None:
    with pytest.raises(ValueError, match=r"divisible by 16, got 40: set generator\.levels=3"):
        DeepUNetConfig().check_size(40)


@pytest.mark.parametrize(("depth", "side"), [(3, 32), (4, 16), (5, 8)])
def test_critic_map_has_a_score_for_every_square(depth: int, side: int) -> None:
    pictures = (
        torch.empty(2, 1, 256, 256, device="meta"),
        torch.empty(2, 2, 256, 256, device="meta"),
    )
    assert on_meta(SquareCriticConfig(depth=depth))(*pictures).shape == (2, 1, side, side)


def test_critic_counts() -> None:
    """Kernels 3-64-128-256-512-1; BatchNorm adds two numbers a channel, the deviation one channel to the last."""
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
def test_critic_says_what_fits(norm: Norm, size: int, fits: bool) -> None:
    config = SquareCriticConfig(base_channels=2, norm=norm)
    if fits:
        config.check_size(size)
        assert config.build()(
            torch.randn(2, 1, size, size), torch.randn(2, 2, size, size)
        ).shape == (2, 1, 1, 1)
    else:
        with pytest.raises(ValueError, match=r"smaller critic\.depth"):
            config.check_size(size)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 300.0])
def test_pixel_norm_in_bfloat16_is_as_good_as_its_numbers(scale: float) -> None:
    """Computed in float32: off from float64 by the rounding of what comes out alone, one half of 2^-8."""
    torch.manual_seed(0)
    x = (scale * torch.randn(2, 512, 3, 3)).bfloat16()
    wide = x.double()
    exact = wide / (wide.square().mean(1, keepdim=True) + 1e-8).sqrt()
    found = PixelNorm()(x)
    assert found.dtype == torch.bfloat16
    assert ((found.double() - exact).abs() <= 2**-8 * exact.abs()).all()


def test_pixel_norm_makes_the_mean_square_one() -> None:
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(
        PixelNorm()(x).square().mean(1), torch.ones(2, 3, 3, dtype=torch.float64)
    )
    assert PixelNorm()(torch.zeros(1, 8, 2, 2)).abs().max() == 0


def test_pixel_norm_holds_under_autocast() -> None:
    x = torch.randn(2, 8, 3, 3)
    outside = PixelNorm()(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(PixelNorm()(x), outside)


def test_equal_pictures_deviate_by_nothing_with_a_finite_slope() -> None:
    x = torch.randn(1, 6, 4, 4).repeat(5, 1, 1, 1).requires_grad_()
    out = MinibatchStddev()(x)
    assert out.shape == (5, 7, 4, 4)
    assert torch.equal(out[:, :6], x)
    assert out[:, 6].abs().max() == 0
    out[:, 6].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_deviation_of_two_pictures_is_half_their_distance() -> None:
    x = torch.zeros(2, 3, 2, 2, dtype=torch.float64)
    x[1, 0] = 6.0  # deviations 3, 0, 0: mean 1
    assert MinibatchStddev()(x)[:, 3].tolist() == [[[1.0, 1.0], [1.0, 1.0]]] * 2


def test_the_deviation_reaches_every_score() -> None:
    """A critic with the channel tells a batch of one picture from a batch of several, picture for picture."""
    torch.manual_seed(0)
    critic = SquareCriticConfig(
        base_channels=4, depth=2, norm="none", minibatch_stddev=True
    ).build()
    L, colour = torch.randn(3, 1, 16, 16), torch.randn(3, 2, 16, 16)

    def alone(i: int) -> Tensor:
        return critic(L[i : i + 1], colour[i : i + 1])

    together = critic(L, colour)
    assert all((together[i] - alone(i)).abs().min() > 0 for i in range(3))


def test_gan_as_published() -> None:
    recipe = get_recipe("drouilhet_gan")
    assert (recipe.generator_adam.lr, recipe.critic_adam.lr) == (4e-4, 5e-5)  # section 4.1
    game = recipe.objective.adversarial
    assert isinstance(game, BCE)
    undecided, best = torch.zeros(1), torch.tensor([1.3863])  # logit(.8)
    assert game.critic(undecided, undecided).item() == pytest.approx(0.693, abs=1e-3)
    assert game.critic(best, -best).item() == pytest.approx(
        0.500, abs=1e-3
    )  # section 4.1: "around 0.6-0.7"
    term = recipe.objective.reconstruction[0]
    assert isinstance(term, RebalancedL1)
    assert (term.weight.at(26), term.mode, term.largest, term.least) == (70, "populated", 5, 0.5)


def test_wgan_weight_follows_the_epoch() -> None:
    recipe = get_recipe("drouilhet_wgan_gp")
    at = recipe.objective.reconstruction[0].weight.at
    assert [at(epoch) for epoch in (0, 18.99, 19, 25.99, 26, 40)] == [
        70,
        70,
        10,
        10,
        30,
        30,
    ]  # section 7.5
    assert recipe.n_critic == 5
    assert recipe.objective.penalties[0].weight.at(0) == 10


def test_progan_has_no_l1() -> None:
    recipe = get_recipe("drouilhet_progan")
    assert [type(term) for term in recipe.objective.reconstruction] == [Perceptual]
    assert recipe.objective.reconstruction[0].weight.at(0) == 100
    norms = {type(module) for module in on_meta(recipe.generator).modules()}  # type: ignore[arg-type]
    assert PixelNorm in norms
    assert nn.BatchNorm2d not in norms


@pytest.mark.parametrize(
    "name", [name for name in RECIPES if name.startswith(("drouilhet", "nampouri_r"))]
)
def test_recipes_fit_together(name: str) -> None:
    get_recipe(name).check()
