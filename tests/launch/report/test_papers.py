"""The papers' headline scores."""

from __future__ import annotations

import inspect
import re

from launch.report.papers import HEADLINES

from colortrain.recipes import RECIPES


def test_the_scores_are_those_of_the_recipes_docstrings() -> None:
    for name, scores in HEADLINES.items():
        text = inspect.getdoc(RECIPES[name]) or ""
        numbers = {float(number) for number in re.findall(r"\d+\.\d+", text)}
        assert set(scores.values()) <= numbers, name
