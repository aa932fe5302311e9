"""Learning rates that are reduced when the validation score stops improving."""

from __future__ import annotations

import json

from colortrain.recipe import Plateau
from colortrain.training.plateau import ReduceOnPlateau

SCORES = [5.0, 4, 4, 4, 3, 3, 3, 3, 3, 9]


def factors(plateau: ReduceOnPlateau, scores: list[float]) -> list[float]:
    result = []
    for score in scores:
        plateau.step(score)
        result.append(plateau.factor)
    return result


def test_falls_after_patience_evaluations_without_a_better_one() -> None:
    expected = [*[1] * 3, *[0.1] * 3, *[0.1**2] * 2, *[0.1**3] * 2]
    assert factors(ReduceOnPlateau(Plateau(patience=2)), SCORES) == expected


def test_off_by_default() -> None:
    assert factors(ReduceOnPlateau(Plateau()), SCORES) == [1] * 10


def test_resumes_from_a_checkpoint() -> None:
    config = Plateau(patience=2)
    expected = factors(ReduceOnPlateau(config), SCORES)
    for cut in (0, 3, 7):
        first, second = ReduceOnPlateau(config), ReduceOnPlateau(config)
        before = factors(first, SCORES[:cut])
        second.load(json.loads(json.dumps(first.state())))
        assert before + factors(second, SCORES[cut:]) == expected
