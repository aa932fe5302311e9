"""nazeri's recipes: published values, parameter counts, error messages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from colortrain.losses.adversarial import BCE
from colortrain.losses.reconstruction import L1, L2
from colortrain.models.fully_convolutional import (
    Expand,
    FullyConvolutionalConfig,
    SameCriticConfig,
)
from colortrain.models.initialise import num_parameters
from colortrain.recipe import override
from colortrain.recipes import get_recipe
from shards.errors import UserError


def on_meta(config: FullyConvolutionalConfig | SameCriticConfig) -> nn.Module:
    with torch.device("meta"):
        return config.build()


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("nazeri_gan", [16_654_851, 2_767_553]),
        ("nazeri_unet_l2", [16_654_851]),
        ("nazeri_gan_places", [42_023_811, 2_767_553]),
    ],
)
def test_parameter_counts_of_the_authors_code(name: str, counts: list[int]) -> None:
    configs = get_recipe(name).network_configs.values()
    with torch.device("meta"):
        assert [num_parameters(config.build()) for config in configs] == counts


def test_dropout_is_in_the_first_decoder_blocks() -> None:
    def where(name: str) -> list[bool]:
        config = get_recipe(name).generator
        network = on_meta(config)  # type: ignore[arg-type]
        return [
            isinstance(m.dropout, nn.Dropout) for m in network.modules() if isinstance(m, Expand)
        ]

    assert where("nazeri_gan") == [True] * 2 + [False] * 2
    assert where("nazeri_gan_places") == [True] * 3 + [False] * 4
    assert where("nazeri_unet_l2") == [False] * 4


def test_published_values() -> None:
    gan, places = get_recipe("nazeri_gan"), get_recipe("nazeri_gan_places")
    assert [(r.size, r.batch_size, r.epochs) for r in (gan, places)] == [
        (32, 128, 200),
        (256, 16, 20),
    ]  # table 1
    for recipe in (gan, places):
        recipe.check()
        assert recipe.generator_adam == recipe.critic_adam
        assert (recipe.generator_adam.lr, recipe.generator_adam.betas[0]) == (
            2e-4,
            0.5,
        )  # section 3.3
        assert recipe.plateau.factor == 0.1
        assert recipe.objective.adversarial == BCE(real_label=0.9, fake_label=0.0)
        assert recipe.objective.adversarial_weight.at(0) == 1
        assert [(type(t), t.weight.at(0)) for t in recipe.objective.reconstruction] == [(L1, 100)]
        assert (recipe.n_critic, recipe.n_generator) == (1, 1)


def test_l2_baseline_has_no_adversarial_loss() -> None:
    recipe = get_recipe("nazeri_unet_l2")
    recipe.check()
    assert [(type(t), t.weight.at(0)) for t in recipe.objective.reconstruction] == [(L2, 1)]
    assert not recipe.objective.has_adversarial_weight
    assert recipe.critic is None
    assert recipe.build_networks()[1] is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "size=40",
            r"levels=4 requires a size divisible by 16 and at least 32, got 40: "
            r"set generator\.levels=3",
        ),
        ("size=16", r"got 16: set generator\.levels=3"),
        ("size=33", "a power of two"),
        ("critic.inputs=3", "set critic.inputs"),
    ],
)
def test_errors_name_the_field(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        override(get_recipe("nazeri_gan"), [setting]).check()


@pytest.mark.parametrize(
    "setting", ["generator.base_channels=0", "generator.levels=0", "generator.dropout=1"]
)
def test_invalid_generators_raise(setting: str) -> None:
    with pytest.raises(UserError, match=r"generator\."):
        override(get_recipe("nazeri_gan"), [setting])
