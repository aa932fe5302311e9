"""Recipes: published numbers, changed fields, digests, files and consistency checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from colortrain.losses.reconstruction import L1
from colortrain.recipe import (
    EMA,
    Adam,
    Objective,
    Plateau,
    Recipe,
    differences,
    load_recipe,
    override,
    parse_recipe,
    save_recipe,
)
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


# fields that recipes have got since their first version, by the class that has them
ADDED = {
    "Recipe": ("critic_batches", "fit"),
    "Objective": ("critic_every",),
    "GradientPenalty": ("patches",),
    "L1": ("channels",),
    "RebalancedL1": ("channels",),
    "ShallowUNetConfig": ("thick_at",),
    "ResUNetConfig": ("own_bridge", "dropout_unit"),
}


def without_added(value: Any) -> Any:
    """Return a recipe's plain value as it was before the fields in ADDED existed."""
    if isinstance(value, dict):
        added = ADDED.get(value.get("type", ""), ())
        return {name: without_added(item) for name, item in value.items() if name not in added}
    return [without_added(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", RECIPES)
def test_files_of_earlier_versions_are_the_same_recipes(name: str) -> None:
    """Runs of them resume: the fields' defaults are what those versions did."""
    recipe = get_recipe(name)
    document = without_added(to_plain(recipe))
    assert "critic_batches" not in document
    earlier = parse_recipe(document, "recipe.json")
    assert dataclasses.replace(earlier, fit=recipe.fit) == recipe
    assert earlier.digest == recipe.digest
    assert differences(earlier, recipe) == []


@pytest.mark.parametrize(
    "change",
    [
        "critic_batches=same",
        "objective.critic_every=2",
        "objective.penalties.0.patches=sum",
        "objective.reconstruction.0.channels=sum",
    ],
)
def test_other_readings_are_other_runs(change: str) -> None:
    recipe = get_recipe("drouilhet_wgan_gp")
    changed = override(recipe, [change])
    assert changed.digest != recipe.digest
    assert len(differences(recipe, changed)) == 1


def test_nampouri_as_published() -> None:
    recipe = get_recipe("nampouri_unet")
    recipe.check()
    assert recipe.total_images(8000) // recipe.batch_size == 150_000  # section 5.2
    assert recipe.generator_adam == recipe.critic_adam
    assert (recipe.generator_adam.lr, recipe.generator_adam.betas) == (2e-4, (0.5, 0.999))
    assert recipe.objective.reconstruction[0].weight.at(0) == 100


def test_override_changes_fields_at_every_depth() -> None:
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


def test_cells_larger_than_the_image_are_refused() -> None:
    with pytest.raises(
        UserError, match="colourfulness_gap: cell=64 is more than the image size, 32 pix"
    ):
        override(get_recipe("flagship"), ["objective.reconstruction.3.cell=64"]).check()


def test_an_unsupported_size_error_says_what_to_set() -> None:
    with pytest.raises(UserError, match=r"set generator\.levels=6"):
        override(get_recipe("nampouri_unet"), ["size=64"]).check()


def test_unknown_recipe_lists_the_nearest() -> None:
    with pytest.raises(
        UserError, match="unknown recipe 'nampouri'; valid, nearest first: nampouri_unet"
    ):
        get_recipe("nampouri")


def test_the_digest_ignores_resumable_fields_only() -> None:
    recipe = get_recipe("nampouri_unet")
    longer = override(recipe, ["images=7", "checkpoint_every=3"])
    other = override(recipe, ["critic_adam.lr=1e-4"])
    assert longer.digest == recipe.digest != other.digest
    assert differences(recipe, longer) == []
    assert [line.split(":")[0] for line in differences(recipe, other)] == ["critic_adam"]


@pytest.mark.parametrize("change", ["span=10", "ema.share=.1"])
def test_the_length_is_not_resumable_if_schedules_or_the_average_depend_on_it(change: str) -> None:
    recipe = override(get_recipe("nampouri_unet"), [change, "images=8"])
    longer, more_logs = override(recipe, ["images=16"]), override(recipe, ["log_every=3"])
    assert longer.digest != recipe.digest == more_logs.digest
    assert differences(recipe, longer) == ["images: 8 -> 16"]


def test_the_ema_decay_halves_the_average_in_one_half_life() -> None:
    assert EMA(half_life=100.0).decay(50, 10**6) ** 2 == pytest.approx(0.5)
    assert EMA(share=0.25).decay(100, 400) == pytest.approx(0.5)
    assert not EMA()


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: Adam(betas=(0.5, 1.0)), r"betas must be in \[0, 1\)"),
        (lambda: EMA(half_life=1.0, share=0.1), "give only one of them"),
        (lambda: EMA(share=-1.0), "must not be negative"),
        (lambda: Plateau(factor=1.0), r"factor in \(0, 1\), got 0 and 1.0"),
        (lambda: Objective(critic_every=0), "critic_every must be at least 1, got 0"),
        (lambda: Objective(reconstruction=(L1(), L1())), "must have different names, got l1, l1"),
        (
            lambda: Objective(reconstruction=(), adversarial_weight=Schedule(((0.0, 0.0),))),
            "nothing to minimise",
        ),
    ],
)
def test_impossible_values_are_refused(create: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("critic.inputs=4", "the critic has 4 input channels, L and the colour of SymmetricCodec"),
        ('codec={"type": "LabCodec"}', "has 2 output channels, LabCodec requires 3"),
        ("keep_every=3", "keep_every=3 is not a multiple of checkpoint_every=500"),
        ("size=100", "recipe nampouri_unet: generator: "),
    ],
)
def test_components_must_fit_together(change: str, message: str) -> None:
    recipe = override(get_recipe("nampouri_unet"), [change])
    with pytest.raises(UserError, match=message):
        recipe.check()


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no recipe file"), ("{", "is not valid JSON"), ("[]", "expected a JSON object")],
)
def test_a_missing_or_invalid_file_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "recipe.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        load_recipe(path)
    assert str(path) in str(raised.value)


def test_impossible_recipes_are_refused() -> None:
    recipe: Recipe = get_recipe("nampouri_unet")
    for change in ({"flip": 1.5}, {"crop": 0.0}, {"seed": -1}, {"n_critic": 2, "n_generator": 2}):
        with pytest.raises(ValueError, match=next(iter(change))):
            dataclasses.replace(recipe, **change)
