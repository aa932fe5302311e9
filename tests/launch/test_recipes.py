"""The `colortrain recipes` command: the table, and one recipe in full."""

from __future__ import annotations

import pytest

from colortrain.recipes import RECIPES
from colortrain.schedule import Schedule
from launch.recipes import main, schedule_text


def test_the_table_has_every_recipe_with_its_parameter_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    for name in RECIPES:
        assert name in printed
    assert "54,410,370" in printed
    assert "2,765,633" in printed
    assert "100 x l1" in printed
    assert printed.count("--fit squash") == 2 + 3 + 2  # nampouri, valentini and arun resize


@pytest.mark.parametrize("name", RECIPES)
def test_one_recipe_in_full_has_its_command_and_its_fields(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name]) == 0
    printed = capsys.readouterr().out
    assert f"--recipe {name} " in printed
    assert '"batch_size"' in printed


def test_schedules_as_short_text() -> None:
    assert schedule_text(Schedule(((0, 70), (19, 10)))) == "70, 10 from epoch 19"
