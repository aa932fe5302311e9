"""The benchmark of several processes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from launch.benchmark import main, scaling
from launch.benchmark.training.scaling_worker import MODULE, WEAK
from launch.benchmark.training.setup import TrainingSetup
from shards.errors import UserError, command_name
from tests.support.benchmark_reports import check_report
from tests.support.benchmark_setup import small_argv, small_setup
from tests.support.gpus import pretend_gpus


def test_two_processes_are_compared_with_one(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "scaling.json"
    assert main(["scaling", *small_argv(shards, "--rounds", "1", "--json", str(out))]) == 0
    document = json.loads(out.read_text())
    rows = [row for row in document["rows"] if row["unit"] == "images/s"]
    check_report({**document, "rows": rows})
    rates = {row["name"]: row["value"] for row in rows}
    (goal,) = document["goals"]
    assert goal["value"] == pytest.approx(
        50 * rates["2 processes, one batch per process"] / rates["1 process"]
    )


def test_the_error_of_a_process_is_one_line(tmp_path: Path) -> None:
    args = argparse.Namespace(threads=1, seconds=0.1)
    recipe = small_setup(tmp_path, tmp_path).recipe
    setup = TrainingSetup(recipe, (str(tmp_path / "none"),), tmp_path)
    with pytest.raises(UserError) as error:
        scaling.launch_processes(setup, 2, [WEAK], args)
    assert str(error.value).startswith(f"--ranks 2: no folder {tmp_path / 'none'}")
    assert "\n" not in str(error.value)


def test_without_a_user_error_the_end_of_the_output_is_given() -> None:
    name = command_name(MODULE)
    errors = f"x\n{name}: error: first\n{name}: error: second\n"
    assert scaling.error_message(errors) == "first"
    assert scaling.error_message("x" * 3000 + "end") == "x" * 1997 + "end"


@pytest.mark.parametrize(("gpus", "counts"), [(0, [1, 2]), (1, [1]), (3, [1, 2]), (8, [1, 2, 4])])
def test_by_default_the_counts_divide_the_batch(
    gpus: int, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(monkeypatch, gpus)
    assert scaling.default_ranks(4) == counts


def test_more_processes_than_gpus_are_refused(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(monkeypatch, 1)
    with pytest.raises(UserError, match="--ranks 2: give a number from 1 to 1"):
        main(["scaling", *small_argv(shards, "--ranks", "2")])
    with pytest.raises(UserError, match="batch_size=4 does not divide"):
        main(["scaling", *small_argv(shards, "--ranks", "3")])
