"""Learning rates that fall when validation stands still."""

from __future__ import annotations

import json

from colortrain.recipe import Plateau
from colortrain.training.plateau import PlateauWatch

SCORES = [5.0, 4, 4, 4, 3, 3, 3, 3, 3, 9]


def factors(watch: PlateauWatch, scores: list[float]) -> list[float]:
    seen = []
    for score in scores:
        watch.see(score)
        seen.append(watch.factor)
    return seen


def test_falls_after_patience_evaluations_without_a_better_one() -> None:
    assert factors(PlateauWatch(Plateau(patience=2)), SCORES) == [
        1,
        1,
        1,
        0.1,
        0.1,
        0.1,
        *[0.1**2] * 2,
        *[0.1**3] * 2,
    ]


def test_off_by_default() -> None:
    assert factors(PlateauWatch(Plateau()), SCORES) == [1] * 10


def test_goes_on_from_a_checkpoint() -> None:
    whole, first, second = (PlateauWatch(Plateau(patience=2)) for _ in range(3))
    expected = factors(whole, SCORES)
    for cut in (0, 3, 7):
        first, second = PlateauWatch(Plateau(patience=2)), PlateauWatch(Plateau(patience=2))
        before = factors(first, SCORES[:cut])
        second.load(json.loads(json.dumps(first.state())))
        assert before + factors(second, SCORES[cut:]) == expected
