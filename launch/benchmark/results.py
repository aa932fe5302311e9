"""The results of a benchmark: rows with the measurements of methods, and goals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """The measurements of one method: one row in the table of a section.

    `value` is the median over the rounds, `low` the minimum and `high` the maximum, all
    in `unit`.
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

    `value` is the median over the rounds, `low` the minimum and `high` the maximum, all
    in `unit`. The goal is met if `value` is at least `goal`, or, with `at_most`, if it
    is at most `goal`.
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
