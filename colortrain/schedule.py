"""Values that change during training, as functions of the epoch.

The epoch is the number of images seen, divided by the size of the dataset.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A value that changes with the epoch.

    `points` are (epoch, value) pairs with increasing epochs. Each value holds until the
    next point, or with `linear=True` is interpolated linearly. Raises ValueError if
    there are no points or the epochs do not increase.

    >>> Schedule(((0, 70.0), (19, 10.0), (26, 30.0))).at(20.5)
    10.0
    """

    points: tuple[tuple[float, float], ...]
    linear: bool = False

    def __post_init__(self) -> None:
        epochs = [epoch for epoch, _ in self.points]
        if not epochs or epochs != sorted(set(epochs)):
            raise ValueError(
                f"a schedule must have points with increasing epochs, got {self.points}"
            )

    def at(self, epoch: float) -> float:
        """Return the value at `epoch`, which may be fractional."""
        after = bisect_right([point[0] for point in self.points], epoch)
        if after == 0:
            return self.points[0][1]
        start, value = self.points[after - 1]
        if not self.linear or after == len(self.points):
            return value
        end, target = self.points[after]
        return value + (target - value) * (epoch - start) / (end - start)


def constant(value: float) -> Schedule:
    """Return a schedule whose value is the same in every epoch."""
    return Schedule(((0.0, float(value)),))
