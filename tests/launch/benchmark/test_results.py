"""Goals are met at their limit."""

from __future__ import annotations

import pytest

from launch.benchmark.results import Goal


@pytest.mark.parametrize(
    ("value", "at_most", "met"),
    [(10, False, True), (9.9, False, False), (10, True, True), (10.1, True, False)],
)
def test_a_goal_is_a_lower_or_an_upper_limit(value: float, at_most: bool, met: bool) -> None:
    goal = Goal(what="any", value=value, low=0, high=99, goal=10, at_most=at_most)
    assert goal.met == met
