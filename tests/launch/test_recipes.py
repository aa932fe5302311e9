"""The recipe door: every recipe stands in the table with its counts, and one prints in full."""

from __future__ import annotations

import pytest

from colortrain.recipes import RECIPES
from colortrain.schedule import Schedule
from launch.recipes import main, schedule_text


def test_table_names_every_recipe_and_its_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    for name in RECIPES:
        assert name in printed
    assert "54,410,370" in printed
    assert "2,765,633" in printed
    assert "100 x l1" in printed


@pytest.mark.parametrize("name", RECIPES)
def test_one_in_full_has_story_command_and_fields(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name]) == 0
    printed = capsys.readouterr().out
    assert f"--recipe {name} " in printed
    assert '"batch_size"' in printed


def test_schedules_in_few_characters() -> None:
    assert schedule_text(Schedule(((0, 70), (19, 10)))) == "70, 10 from epoch 19"
