"""The options of an experiment."""

from __future__ import annotations

from pathlib import Path

from tests.launch.reproduce.cifar import make_options


def test_recipes_and_seeds_are_not_shared_by_the_rows_of_a_table() -> None:
    options = make_options(Path("out"), limit=5)
    assert options.shared() == {"table": "cifar10", "size": 32, "base_channels": 4, "limit": 5}
    other = make_options(Path("out"), "nazeri_gan", limit=5, seeds=(7,))
    assert other.shared() == options.shared()
