"""Numbers that change with training time, measured in epochs (images seen / dataset size): loss weights, rates."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A value that depends on the epoch: held between points, or joined by straight lines with `linear=True`.

    `points`: (epoch, value) pairs, epochs rising. Before the first point its value holds, after the last the last's.

    >>> Schedule(((0, 70.0), (19, 10.0), (26, 30.0))).at(20.5)
    10.0
    """

    points: tuple[tuple[float, float], ...]
    linear: bool = False

    def __post_init__(self) -> None:
        epochs = [epoch for epoch, _ in self.points]
        if not epochs or epochs != sorted(set(epochs)):
            raise ValueError(f"a schedule needs points at rising epochs, got {self.points}")

    def at(self, epoch: float) -> float:
        """The value at `epoch` (a fraction is part of an epoch)."""
        after = bisect_right([point[0] for point in self.points], epoch)
        if after == 0:
            return self.points[0][1]
        start, value = self.points[after - 1]
        if not self.linear or after == len(self.points):
            return value
        end, target = self.points[after]
        return value + (target - value) * (epoch - start) / (end - start)


def constant(value: float) -> Schedule:
    """The schedule that is `value` always."""
    return Schedule(((0.0, float(value)),))
