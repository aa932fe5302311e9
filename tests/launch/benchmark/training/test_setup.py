"""The options, trainers and batches that the benchmarks of training have in common."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from launch.benchmark import main
from launch.benchmark.training.setup import cycle_batches, make_setup, make_training_parser
from shards.errors import UserError
from tests.support.benchmark_setup import small_argv, small_setup


def test_errors_are_one_line(shards: Path) -> None:
    with pytest.raises(UserError, match=r"--seconds 0\.0: must be above 0"):
        main(["step", *small_argv(shards, "--seconds", "0")])
    with pytest.raises(UserError, match="batch_size=4 does not divide"):
        main(["scaling", *small_argv(shards, "--ranks", "3")])
    with pytest.raises(UserError, match="contains 32 px samples"):
        main(["step", "--shards", str(shards)])


def test_options_become_a_setup(shards: Path, tmp_path: Path) -> None:
    """A recipe starts without downloads; --set changes its fields."""
    parser = make_training_parser("any", "", "")
    options = ["--recipe", "nampouri_resnet18", "--set", "size=32", "--set", "seed=9"]
    args = parser.parse_args(["--shards", str(shards), *options])
    setup = make_setup(args, tmp_path)
    assert (setup.recipe.size, setup.recipe.seed) == (32, 9)
    assert setup.recipe.generator.pretrained is None  # type: ignore[union-attr]
    assert setup.shards == (str(shards),)


def test_the_same_batches_are_used_again(shards: Path, tmp_path: Path) -> None:
    batches = small_setup(shards, tmp_path).load_batches()
    assert len(batches) == 4
    assert not torch.equal(batches[0].L, batches[1].L)
    again = list(islice(cycle_batches(batches), 6))
    assert again[4] is batches[0]
    assert again[5] is batches[1]


def test_trainers_of_several_precisions_live_in_one_process(shards: Path, tmp_path: Path) -> None:
    """The first one still computes in float32 when a second one with bf16 exists."""
    setup = small_setup(shards, tmp_path)
    batch = setup.load_batches()[0]
    full, alone = (setup.make_trainer(name) for name in ("full", "alone"))
    expected = alone.generator.module(batch.L)
    half = setup.make_trainer("half", precision="bf16")
    outputs = [trainer.generator.wrapped(batch.L) for trainer in (full, half)]
    torch.testing.assert_close(outputs[0], expected)
    assert not torch.equal(outputs[1], expected)
    assert full.run == tmp_path / "full"
