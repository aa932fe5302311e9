"""The flagship recipe: its schedules span a run of any length."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from colortrain.distributed.setup import make_accelerator
from colortrain.recipes.flagship import cosine, flagship
from colortrain.runs.folder import open_data
from colortrain.training.trainer import Trainer
from tests.support.scaled_recipes import scaled
from tests.support.small_shard_set import small_set


def test_learning_rate_warms_up_and_falls_as_a_cosine() -> None:
    rate = cosine(10)
    assert [rate.at(epoch) for epoch in (0, 0.5, 1, 10, 11)] == pytest.approx(
        [0.01, 0.505, 1, 0, 0]
    )
    assert rate.at(5.5) == pytest.approx((1 + math.cos(math.pi / 2)) / 2, abs=1e-3)


@pytest.mark.parametrize("in_epochs", [False, True])
@pytest.mark.parametrize("span", [10, 5, 0])
def test_schedules_stretch_to_the_run_length(span: float, in_epochs: bool, tmp_path: Path) -> None:
    recipe = dataclasses.replace(scaled(flagship(), steps=4), span=span)
    data = open_data(
        small_set(tmp_path / "set", size=32, count=12, splits=("train", "val")), recipe
    )
    if in_epochs:
        recipe = dataclasses.replace(recipe, images=None, epochs=16 / len(data.train))
    Trainer(recipe, data, tmp_path / "run", make_accelerator()).train()
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    rates = [line["lr"] for line in lines if line["kind"] == "train"]
    clock = [step * (span / 4 if span else 4 / len(data.train)) for step in (1, 2, 3, 4)]
    assert rates == pytest.approx(
        [recipe.generator_adam.lr * recipe.learning_rate.at(epoch) for epoch in clock]
    )
