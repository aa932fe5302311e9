"""Recipes: the published numbers, `--set`, JSON and back, and errors that name the field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.recipe import differences, load_recipe, override, parse_recipe, save_recipe
from colortrain.recipes import RECIPES, get_recipe
from colortrain.schedule import Schedule
from colortrain.serialize import to_plain
from shards.errors import UserError


@pytest.mark.parametrize("name", RECIPES)
def test_json_round_trip(name: str, tmp_path: Path) -> None:
    recipe = override(RECIPES[name](), ["objective.reconstruction.0.weight=[[0,70],[19,10]]"])
    save_recipe(recipe, tmp_path / "recipe.json")
    assert load_recipe(tmp_path / "recipe.json") == recipe
    assert recipe.name == name
    assert f"--recipe {name} " in (RECIPES[name].__doc__ or "")


def test_nampouri_as_published() -> None:
    recipe = get_recipe("nampouri_unet")
    recipe.check()
    assert recipe.total_images(8000) // recipe.batch_size == 150_000  # section 5.2
    assert recipe.generator_adam == recipe.critic_adam
    assert (recipe.generator_adam.lr, recipe.generator_adam.betas) == (2e-4, (0.5, 0.999))
    assert recipe.objective.reconstruction[0].weight.at(0) == 100


def test_override_reaches_every_depth() -> None:
    recipe = override(
        get_recipe("nampouri_unet"),
        [
            "critic_adam.lr=5e-5",
            "generator_adam.betas=[0, .9]",
            "objective.reconstruction.0.weight=50",
            "objective.adversarial_weight=[[0, 0], [5, 0.1]]",
            "images=1000",
            "test_dropout=false",
        ],
    )
    assert recipe.critic_adam.lr == 5e-5
    assert recipe.objective.reconstruction[0].weight.at(7) == 50
    assert recipe.objective.adversarial_weight == Schedule(((0, 0), (5, 0.1)))
    assert recipe.total_images(999) == 1000
    assert not recipe.test_dropout


def test_none_is_a_word_where_a_word_is_meant() -> None:
    assert override(get_recipe("nampouri_unet"), ["critic.norm=none"]).critic == PatchCriticConfig(
        norm="none"
    )
    assert override(
        get_recipe("nampouri_resnet18"), ["generator.pretrained=none"]
    ).generator == ResNet18UNetConfig(pretrained=None)
    assert override(get_recipe("nampouri_unet"), ["images=5", "images=none"]).images is None


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("generatr.base_channels=1", "unknown field 'generatr'; valid, nearest first: generator,"),
        (
            "generator.base_chanels=1",
            "unknown field 'base_chanels'; valid, nearest first: base_channels,",
        ),
        (
            "generator.base_channels=many",
            "generator.base_channels: needs a whole number, got 'many'",
        ),
        ("generator.base_channels=1.5", "needs a whole number"),
        ("critic_adam.lr=0", "lr must be above 0"),
        ("critic_adam.lr=nan", "needs a number"),
        ("critic_adam.eps=-1", "eps, clip and muon must not be negative"),
        ("learning_rate=-1", "learning_rate must not be negative"),
        ("epochs=1e13", "images and epochs must be above 0 and at most 1,000,000,000,000"),
        ("seed=1" + 400 * "0", "seed: needs a whole number"),
        ("span=1" + 400 * "0", "span: needs a number"),
        ("span=-1", "span must be at least 0"),
        ('generator={"type": []}', "unknown type '[]'"),
        ("batch_size=0", "batch_size must be at least 1"),
        ("flip=true", "needs a number"),
        ("objective.reconstruction.2.weight=1", "unknown item '2'; valid, nearest first: 0"),
        ("objective.adversarial_weight=[[3, 1], [1, 2]]", "rising"),
        ("generator=1", "needs an object with the fields of UNetConfig"),
        ("seed.x=1", "plain value"),
        ("lr", "write it as field=value"),
        ("=3", "write it as field=value"),
    ],
)
def test_wrong_overrides_name_the_field(assignment: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        override(get_recipe("nampouri_unet"), [assignment])
    assert words in str(error.value) or words.split(",")[0] in str(error.value)
    assert "\n" not in str(error.value)


def test_a_gap_over_cells_larger_than_the_picture_is_refused() -> None:
    with pytest.raises(UserError, match="colourfulness_gap: cell=64 is more than 32 pixels"):
        override(get_recipe("flagship"), ["objective.reconstruction.3.cell=64"]).check()


def test_a_size_the_network_cannot_take_says_what_fits() -> None:
    with pytest.raises(UserError, match=r"set generator\.levels=6"):
        override(get_recipe("nampouri_unet"), ["size=64"]).check()


def test_unknown_recipe_lists_the_nearest() -> None:
    with pytest.raises(
        UserError, match="unknown recipe 'nampouri'; valid, nearest first: nampouri_unet"
    ):
        get_recipe("nampouri")


def test_digest_ignores_pace_alone() -> None:
    recipe = get_recipe("nampouri_unet")
    longer = override(recipe, ["images=7", "checkpoint_every=3"])
    other = override(recipe, ["critic_adam.lr=1e-4"])
    assert longer.digest == recipe.digest != other.digest
    assert differences(recipe, longer) == []
    assert [line.split(":")[0] for line in differences(recipe, other)] == ["critic_adam"]


@pytest.mark.parametrize("change", ["span=10", "ema.share=.1"])
def test_length_is_no_pace_where_a_share_of_it_decides_what_a_step_computes(change: str) -> None:
    recipe = override(get_recipe("nampouri_unet"), [change, "images=8"])
    longer, told_oftener = override(recipe, ["images=16"]), override(recipe, ["log_every=3"])
    assert longer.digest != recipe.digest == told_oftener.digest
    assert differences(recipe, longer) == ["images: 8 -> 16"]


@pytest.mark.parametrize(
    "damage", [{"sizes": 3}, {"size": "x"}, {"generator": {"type": "Nothing"}}, {"critic": []}]
)
def test_damaged_recipe_files_are_named(damage: dict[str, object]) -> None:
    plain = to_plain(get_recipe("nampouri_unet")) | damage
    with pytest.raises(UserError, match=r"here\.json"):
        parse_recipe(json.loads(json.dumps(plain)), "here.json")


def test_missing_fields_are_named() -> None:
    plain = to_plain(get_recipe("nampouri_unet"))
    del plain["batch_size"]
    with pytest.raises(UserError, match="missing batch_size"):
        parse_recipe(plain, "here.json")
