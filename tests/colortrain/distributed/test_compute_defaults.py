"""What is chosen for the compute options that a user has not chosen."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from colortrain.distributed import compute_defaults
from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.compute_defaults import choose
from colortrain.recipe import Recipe
from colortrain.recipes import RECIPES, get_recipe
from tests.support.scaled_recipes import scaled

LONG, SHORT = 50_000, 49_999


def on(device: str, precision: str = "bf16") -> Any:
    return SimpleNamespace(device=torch.device(device), mixed_precision=precision)


def chosen(recipe: Recipe, accelerator: Any, steps: int = SHORT, **options: Any) -> list[bool]:
    result = choose(ComputeConfig(**options), recipe.generator.build(), accelerator, steps)
    assert result.channels_last is not None
    assert result.compile is not None
    return [result.channels_last, result.compile]


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compute_defaults, "has_compiler", lambda: True)
    with torch._dynamo.config.patch(suppress_errors=False):
        yield


@pytest.mark.parametrize("name", RECIPES)
def test_generators_with_only_batch_norm_are_in_channels_last_on_gpus(name: str) -> None:
    """The recipes with other layers are listed by hand."""
    others = {"flagship", "flagship_calm", "drouilhet_progan"}
    recipe = scaled(get_recipe(name))
    assert chosen(recipe, on("cuda")) == [name not in others, False]
    assert chosen(recipe, on("cuda", "no")) == [False, False]
    assert chosen(recipe, on("cpu")) == [False, False]
    assert chosen(recipe, on("cuda"), channels_last=False) == [False, False]
    assert chosen(recipe, on("cpu"), channels_last=True) == [True, False]


@pytest.mark.parametrize(
    ("steps", "options", "compiles"),
    [
        (LONG, {}, True),
        (SHORT, {}, False),
        (SHORT, {"compile": True}, True),
        (LONG, {"compile": False}, False),
        (LONG, {"recompute": True}, False),
        (LONG, {"deterministic": True}, False),
    ],
)
def test_long_runs_are_compiled_on_gpus(
    steps: int, options: dict[str, bool], compiles: bool
) -> None:
    recipe = scaled(get_recipe("nampouri_unet"))
    assert chosen(recipe, on("cuda"), steps, **options)[1] == compiles
    # an error of the compiler ends only runs for which the user has chosen it
    assert torch._dynamo.config.suppress_errors == (compiles and "compile" not in options)


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_defaults, "has_compiler", lambda: False)
    recipe = scaled(get_recipe("nampouri_unet"))
    assert chosen(recipe, on("cuda"), LONG) == [True, False]
    assert chosen(recipe, on("cpu"), LONG) == [False, False]


def test_deepspeed_chooses_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "1")
    recipe = scaled(get_recipe("nampouri_unet"))
    assert chosen(recipe, on("cuda"), LONG) == [False, False]
