"""Conversion to plain values and back, `--set`, and errors that name the field."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.recipe import override, parse_recipe
from colortrain.recipes import get_recipe
from colortrain.schedule import Schedule, constant
from colortrain.serialize import finite, from_plain, to_plain, with_override
from shards.errors import UserError


@dataclass(frozen=True)
class Inner:
    kind: Literal["a", "none"] = "a"
    pair: tuple[int, float] = (1, 2.0)


@dataclass(frozen=True)
class Outer:
    inner: Inner | None
    schedule: Schedule = constant(1.0)
    items: tuple[Inner, ...] = ()
    flag: bool = False


def test_plain_values_round_trip_through_json() -> None:
    value = Outer(Inner(pair=(3, 0.5)), Schedule(((0, 1.0), (2, 3.0))), (Inner("none"), Inner()))
    plain = to_plain(value)
    assert from_plain(Outer, json.loads(json.dumps(plain)), "x") == value
    assert plain["type"] == "Outer"
    assert plain["items"][0] == {"type": "Inner", "kind": "none", "pair": [1, 2.0]}
    assert to_plain(Outer(None)) == {
        "type": "Outer",
        "inner": None,
        "schedule": 1.0,
        "items": [],
        "flag": False,
    }


def test_finite_replaces_only_infinities_and_nan() -> None:
    value = {"a": math.nan, "b": {"c": -math.inf, "d": 1.5}, "e": "nan"}
    assert finite(value) == {"a": None, "b": {"c": None, "d": 1.5}, "e": "nan"}


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("inner.pair=[2, .25]", Outer(Inner(pair=(2, 0.25)))),
        ("inner.kind=none", Outer(Inner("none"))),
        ("inner=none", Outer(None)),
        ("schedule=.5", Outer(Inner(), constant(0.5))),
        ("flag=True", Outer(Inner(), flag=True)),
    ],
)
def test_with_override_changes_one_field(assignment: str, expected: Outer) -> None:
    assert with_override(Outer(Inner()), assignment) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"inner": None, "flag": 1}, "here.flag: must be true or false, got 1"),
        ({"inner": {"pair": [1]}}, "here.inner.pair: must have 2 values, got 1"),
        ({"inner": {"pair": 1}}, "here.inner.pair: must be a list, got 1"),
        ({"inner": {"kind": "b"}}, "here.inner.kind: unknown value 'b'"),
        ({"inner": None, "items": [{}, {"kind": 1}]}, "here.items.1.kind: unknown value '1'"),
        ({}, "here: missing inner"),
    ],
)
def test_errors_name_the_field(value: Any, message: str) -> None:
    with pytest.raises(UserError) as raised:
        from_plain(Outer, value, "here")
    assert str(raised.value).startswith(message)


def test_none_is_null_or_the_string_none_by_the_type_of_the_field() -> None:
    assert override(get_recipe("nampouri_unet"), ["critic.norm=none"]).critic == PatchCriticConfig(
        norm="none"
    )
    assert override(
        get_recipe("nampouri_resnet18"), ["generator.pretrained=none"]
    ).generator == ResNet18UNetConfig(pretrained=None)
    assert override(get_recipe("nampouri_unet"), ["images=5", "images=none"]).images is None


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("generatr.base_channels=1", "unknown field 'generatr'; valid, nearest first: generator,"),
        (
            "generator.base_chanels=1",
            "unknown field 'base_chanels'; valid, nearest first: base_channels,",
        ),
        (
            "generator.base_channels=many",
            "generator.base_channels: must be a whole number, got 'many'",
        ),
        ("generator.base_channels=1.5", "must be a whole number"),
        ("critic_adam.lr=0", "lr must be above 0"),
        ("critic_adam.lr=nan", "must be a number"),
        ("critic_adam.eps=-1", "eps, clip and muon must not be negative"),
        ("learning_rate=-1", "learning_rate must not be negative"),
        ("epochs=1e13", "images and epochs must be above 0 and at most 1,000,000,000,000"),
        ("seed=1" + 400 * "0", "seed: must be a whole number"),
        ("span=1" + 400 * "0", "span: must be a number"),
        ("span=-1", "span must be at least 0"),
        ('generator={"type": []}', "unknown type '[]'"),
        ("batch_size=0", "batch_size must be at least 1"),
        ("flip=true", "must be a number"),
        ("objective.reconstruction.2.weight=1", "unknown item '2'; valid, nearest first: 0"),
        ("objective.adversarial_weight=[[3, 1], [1, 2]]", "increasing"),
        ("generator=1", "expected a JSON object (UNetConfig"),
        ("seed.x=1", "the value before 'x' has no fields"),
        ("lr", "write it as field=value"),
        ("=3", "write it as field=value"),
    ],
)
def test_invalid_overrides_name_the_field(assignment: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        override(get_recipe("nampouri_unet"), [assignment])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "damage", [{"sizes": 3}, {"size": "x"}, {"generator": {"type": "Nothing"}}, {"critic": []}]
)
def test_errors_in_a_recipe_file_name_the_file(damage: dict[str, object]) -> None:
    plain = to_plain(get_recipe("nampouri_unet")) | damage
    with pytest.raises(UserError, match=r"here\.json"):
        parse_recipe(json.loads(json.dumps(plain)), "here.json")


def test_missing_fields_are_named() -> None:
    plain = to_plain(get_recipe("nampouri_unet"))
    del plain["batch_size"]
    with pytest.raises(UserError, match="missing batch_size"):
        parse_recipe(plain, "here.json")
