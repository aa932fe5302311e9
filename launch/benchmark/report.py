"""What a benchmark says: rows, goals beside what was reached, and the machine; as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from launch.benchmark.chart import draw
from launch.benchmark.machine import describe, machine
from launch.benchmark.results import Goal, Row
from launch.benchmark.timing import Figures
from shards.files import write_atomic


@dataclass
class Report:
    """Rows and goals of one benchmark as they come in."""

    benchmark: str
    settings: dict[str, Any]
    machine: dict[str, Any] = field(
        default_factory=machine
    )  # before the work: the load average is then others'
    rows: list[Row] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        load, cores = self.machine["load_average"][0], self.machine["cores"]
        if load > cores / 4:
            busy = f"load {load} on {cores} cores before this began"
            self.notes.append(f"{busy}: what needs several cores looks worse than it is")

    def add(
        self,
        section: str,
        name: str,
        figures: Figures,
        unit: str,
        sample_bytes: float | None = None,
    ) -> None:
        """Add a row; with the bytes of a sample it also shows bytes a second."""
        bytes_per_second = None if sample_bytes is None else figures.median * sample_bytes
        low, high = figures.low, figures.high
        row = Row(
            section=section,
            name=name,
            unit=unit,
            value=figures.median,
            low=low,
            high=high,
            bytes_per_second=bytes_per_second,
        )
        self.rows.append(row)

    def judge(
        self, what: str, figures: Figures, goal: float, *, at_most: bool = False, unit: str = "x"
    ) -> None:
        """Set a figure beside its goal."""
        value, low, high = figures.median, figures.low, figures.high
        self.goals.append(
            Goal(what=what, value=value, low=low, high=high, goal=goal, at_most=at_most, unit=unit)
        )

    def text(self) -> str:
        """The whole report for people."""
        parts = [describe(self.machine)]
        for section in dict.fromkeys(row.section for row in self.rows):
            rows = [_cells(row) for row in self.rows if row.section == section]
            parts.append(
                f"{section}\n" + _table(["", "median", "least .. greatest", "", "bytes/s"], rows)
            )
        if self.goals:
            parts.append(
                "Goals\n"
                + _table(["", "goal", "reached", "least .. greatest", ""], map(_goal, self.goals))
            )
        return "\n\n".join([*parts, *(f"note: {note}" for note in self.notes)])

    def json(self) -> bytes:
        """The whole report for programs."""
        document = asdict(self)
        for goal, plain in zip(self.goals, document["goals"], strict=True):
            plain["met"] = goal.met
        return json.dumps(document, indent=1).encode() + b"\n"

    def publish(self, path: Path | None, plot: Path | None = None) -> None:
        """Print the table, and write the JSON and the picture where paths are given."""
        print(self.text())
        if plot:
            draw(self.rows, plot)
        if path:
            write_atomic(path, self.json())
            print(f"\nwritten to {path}")


def number(value: float) -> str:
    """Three significant digits at least, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cells(row: Row) -> list[str]:
    speed = "" if row.bytes_per_second is None else f"{row.bytes_per_second / 1e6:,.0f} MB/s"
    return [
        row.name,
        number(row.value),
        f"{number(row.low)} .. {number(row.high)}",
        row.unit,
        speed,
    ]


def _goal(goal: Goal) -> list[str]:
    sign = "<=" if goal.at_most else ">="
    spread = f"{number(goal.low)} .. {number(goal.high)}"
    reached, wanted = f"{number(goal.value)} {goal.unit}", f"{sign} {number(goal.goal)} {goal.unit}"
    return [goal.what, wanted, reached, spread, "reached" if goal.met else "MISSED"]


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [list(head), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  " + "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )
