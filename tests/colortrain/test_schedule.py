"""Values of schedules between, before and after their points."""

from __future__ import annotations

import pytest

from colortrain.schedule import Schedule, constant


@pytest.mark.parametrize(
    ("epoch", "value"), [(0, 70), (18.99, 70), (19, 10), (25.9, 10), (26, 30), (1000, 30)]
)
def test_values_hold_between_points(epoch: float, value: float) -> None:
    assert Schedule(((0, 70), (19, 10), (26, 30))).at(epoch) == value


@pytest.mark.parametrize(("epoch", "value"), [(0, 0), (2, 0), (3, 0.5), (4, 1), (9, 1)])
def test_linear_interpolation(epoch: float, value: float) -> None:
    assert Schedule(((2, 0), (4, 1)), linear=True).at(epoch) == value


def test_constant() -> None:
    assert constant(3).at(0) == constant(3).at(1e9) == 3


@pytest.mark.parametrize("points", [(), ((1, 0), (1, 1)), ((2, 0), (1, 1))])
def test_epochs_must_increase(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="increasing"):
        Schedule(points)
