"""Validation: the whole split is scored, at most eight images are logged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from colortrain.lab import stored_to_lab
from colortrain.recipes import get_recipe
from colortrain.runs.folder import open_data
from colortrain.training import validation as validation_module
from colortrain.training.validation import Validation
from tests.support.fake_accelerator import FakeAccelerator, start_journal
from tests.support.scaled_recipes import scaled
from tests.support.small_shard_set import small_set


@pytest.mark.parametrize(("count", "drawn"), [(22, 8), (6, 3)])
def test_scores_the_split_and_draws_some_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, drawn: int
) -> None:
    """Half of the images are held out; the first and the last of them are drawn."""
    grids: list[Tensor] = []

    def record(lab: Tensor, generated: Tensor) -> np.ndarray:
        assert torch.equal(generated[:, :1], lab[:, :1])
        grids.append(lab)
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(validation_module, "sample_grid", record)
    shards = small_set(tmp_path / "set", size=32, count=count, splits=("train", "val"))
    recipe = scaled(get_recipe("nampouri_unet"))
    split = open_data(str(shards), recipe).validation
    assert split is not None
    journal = start_journal(tmp_path / "run", FakeAccelerator())
    validation = Validation(recipe, split, Accelerator(cpu=True), journal)
    generator = recipe.generator.build()
    assert validation.score(generator)["samples"] == count // 2
    validation.log_samples(generator, step=7)
    assert (tmp_path / "run" / "samples" / "step-000000007.png").is_file()
    (lab,) = grids
    assert lab.shape == (drawn, 3, 32, 32)
    ends = stored_to_lab(torch.from_numpy(split.read([0, count // 2 - 1])))
    assert torch.equal(lab[[0, -1]], ends)
