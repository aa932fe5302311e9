"""What a benchmark found: a row for each thing timed, a goal beside what was reached."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a section: the median over the rounds, the least and the greatest, in `unit`."""

    section: str
    name: str
    unit: str
    value: float
    low: float
    high: float
    bytes_per_second: float | None = None


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What was to be reached: at least `goal`, or at most; `low` and `high` are of single rounds."""

    what: str
    value: float
    low: float
    high: float
    goal: float
    at_most: bool = False
    unit: str = "x"

    @property
    def met(self) -> bool:
        return self.value <= self.goal if self.at_most else self.value >= self.goal
