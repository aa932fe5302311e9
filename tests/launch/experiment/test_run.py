"""Running an experiment: which run of a network is drawn; a network that diverges."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.experiment.options import ExperimentOptions, Network, Plan, unchanged
from launch.experiment.run import _runs, run_experiment
from launch.experiment.sets import Sets
from tests.support.small_shard_set import small_set


def test_the_first_seed_of_each_network_is_drawn() -> None:
    results = [
        {"network": name, "recipe": recipe, "seed": seed, "metrics": {"l1": {}} if seed < 9 else {}}
        for name, recipe, seed in (
            ("flagship", "flagship", 2),
            ("flagship", "flagship", 3),
            ("deeper", "flagship", 0),
            ("removed", "a recipe of another version", 0),
            ("diverged", "flagship", 9),
        )
    ]
    assert _runs(Path("out"), results) == {
        "flagship": Path("out/flagship-2"),
        "deeper": Path("out/deeper-0"),
    }


@pytest.mark.distributed
def test_a_network_that_diverges_is_a_row_without_scores(tmp_path: Path) -> None:
    shards = small_set(tmp_path / "set", size=32, count=8, splits=("train", "val"))
    sets, name = Sets(shards, shards), "nampouri_unet"
    broken = Network(recipe=name, name="broken", settings=("generator_adam.lr=1e38",))
    options = ExperimentOptions(
        table="t",
        out=tmp_path / "out",
        networks=(*unchanged(name), broken),
        size=32,
        base_channels=2,
    )
    for _ in range(2):  # the second time, nothing is trained or scored again
        text = run_experiment(options, Plan(1600, None, 1), sets, None)
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows[0].split(" | ")[:4] == ["| `broken` (diverged)", "0", "", ""]
    assert rows[1].startswith("| `nampouri_unet` | 0 | **")
