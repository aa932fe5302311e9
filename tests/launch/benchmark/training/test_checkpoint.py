"""The benchmark of saves and resumes."""

from __future__ import annotations

import json
from pathlib import Path

from colortrain.models.initialise import num_parameters
from launch.benchmark import main
from launch.benchmark.report import Report
from launch.benchmark.training.checkpoint import SaveCosts, fill_report
from tests.support.benchmark_setup import small_argv, small_setup


def test_saves_are_timed_next_to_steps(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "checkpoint.json"
    assert main(["checkpoint", *small_argv(shards, "--every", "50", "--json", str(out))]) == 0
    document = json.loads(out.read_text())
    rows = {row["name"]: row for row in document["rows"]}
    blocked, step = rows["training blocked by a save"]["low"], rows["time per step"]["high"]
    assert 0 < 100 * blocked / (50 * step + blocked) <= document["goals"][0]["high"]
    recipe = small_setup(shards, tmp_path).recipe
    weights = sum(num_parameters(config.build()) for config in recipe.network_configs.values())
    megabytes = 3 * 4 * weights / 1e6  # float32 weights with the two moments of Adam
    assert 1 < rows["both networks with their Adam states"]["value"] / megabytes < 1.5


def test_fractions_of_the_time() -> None:
    """A save every 100 steps of 10 ms blocks for 20 ms and slows steps by 80 ms."""
    costs = SaveCosts(
        step=[0.01], blocked=[0.02], writing=[0.5], slowdown=[0.08], resume=[2.0], megabytes=[7.0]
    )
    report = Report("checkpoint", {})
    fill_report(report, costs, every=100)
    (goal,) = report.goals
    assert abs(goal.value - 100 * 0.02 / 1.02) < 1e-9
    assert goal.met
    last = report.rows[-1]
    assert (last.section, last.unit) == ("Fraction of the time", "%")
    assert abs(last.value - 100 * 0.1 / 1.1) < 1e-9
    assert {row.name: row.value for row in report.rows}["writing thread"] == 500
