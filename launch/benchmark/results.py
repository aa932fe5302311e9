"""The results of a benchmark: rows with the measurements of methods, and goals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """The measurements of one method: one row in the table of a section.

    value, low, high: median, minimum and maximum over the rounds, in `unit`.
    """

    section: str
    name: str
    unit: str
    value: float
    low: float
    high: float
    bytes_per_second: float | None = None


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A measured quantity, and the goal that it should reach.

    value, low, high: median, minimum and maximum over the rounds, in `unit`; at_most:
    whether `goal` is an upper limit of `value` instead of a lower one.
    """

    what: str
    value: float
    low: float
    high: float
    goal: float
    at_most: bool = False
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Whether `value`, the median, meets the goal."""
        return self.value <= self.goal if self.at_most else self.value >= self.goal
