"""The options of `colortrain reproduce`."""

from __future__ import annotations

from pathlib import Path

from tests.launch.reproduce.cifar import make_options


def test_recipes_and_seeds_are_not_shared_by_the_rows_of_a_table() -> None:
    options = make_options(Path("out"), limit=5)
    assert options.shared() == {"table": "cifar10", "base_channels": 4, "limit": 5}
    other = make_options(Path("out"), limit=5, recipes=("nazeri_gan",), seeds=(7,))
    assert other.shared() == options.shared()
