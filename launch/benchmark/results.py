"""The results of a benchmark: rows of measurements, and goals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a section.

    `value` is the median over the rounds, in `unit`; `low` and `high` are the extremes.
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
    """A measurement and its goal: at least `goal`, or at most `goal` with `at_most`.

    `value` is the median over the rounds, `low` and `high` are the extremes.
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
        """Whether the median meets the goal."""
        return self.value <= self.goal if self.at_most else self.value >= self.goal
