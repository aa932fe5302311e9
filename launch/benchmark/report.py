"""The report of a benchmark: printed as tables, and saved as JSON and as a chart."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from launch.benchmark.chart import draw_chart
from launch.benchmark.machine import describe_machine, format_machine
from launch.benchmark.results import Goal, Row
from launch.benchmark.timing import Measurements
from shards.files import write_atomic


@dataclass
class Report:
    """The results of one benchmark, which are added while it runs.

    benchmark: its name; settings: its options; rows: measurements, one row per method;
    goals: values that measurements should reach.
    """

    benchmark: str
    settings: dict[str, Any]
    # created before the work, so that the load average is that of other programs
    # Only ratios can be compared between machines.
    machine: dict[str, Any] = field(default_factory=describe_machine)
    rows: list[Row] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        load, cores = self.machine["load_average"][0], self.machine["cores"]
        if load > cores / 4:
            self.notes.append(
                f"the load was {load} on {cores} cores before the benchmark started: "
                "the results of methods that use several cores are too low"
            )

    def add_row(
        self,
        section: str,
        name: str,
        measurements: Measurements,
        unit: str,
        sample_bytes: float | None = None,
    ) -> None:
        """Add the measurements of one method as a row to the table of a section.

        sample_bytes: bytes of a sample, if the measurements are samples per second; the
        row then also shows bytes per second.
        """
        row = Row(
            section=section,
            name=name,
            unit=unit,
            value=measurements.median,
            low=measurements.low,
            high=measurements.high,
            bytes_per_second=(None if sample_bytes is None else measurements.median * sample_bytes),
        )
        self.rows.append(row)

    def add_goal(
        self,
        what: str,
        measurements: Measurements,
        goal: float,
        *,
        at_most: bool = False,
        unit: str = "x",
    ) -> None:
        """Add a goal: the median of `measurements` should be at least `goal`.

        what: name of the measured quantity; at_most: whether `goal` is an upper limit
        instead.
        """
        self.goals.append(
            Goal(
                what=what,
                value=measurements.median,
                low=measurements.low,
                high=measurements.high,
                goal=goal,
                at_most=at_most,
                unit=unit,
            )
        )

    def to_text(self) -> str:
        """Return the report as text: machine, tables of rows, goals and notes."""
        parts = [format_machine(self.machine)]
        for section in dict.fromkeys(row.section for row in self.rows):
            rows = [_row_cells(row) for row in self.rows if row.section == section]
            parts.append(f"{section}\n" + _table(["", "median", "min .. max", "", "bytes/s"], rows))
        if self.goals:
            head = ["", "goal", "measured", "min .. max", ""]
            parts.append("Goals\n" + _table(head, map(_goal_cells, self.goals)))
        return "\n\n".join([*parts, *(f"note: {note}" for note in self.notes)])

    def to_json(self) -> bytes:
        """Return the report with all settings, rows, goals and notes as UTF-8 JSON."""
        document = asdict(self)
        for goal, entry in zip(self.goals, document["goals"], strict=True):
            entry["met"] = goal.met
        return json.dumps(document, indent=1).encode() + b"\n"

    def publish(self, path: Path | None, plot: Path | None = None) -> None:
        """Write JSON to `path`, a chart to `plot`, if given, and print the report."""
        try:
            if path:
                write_atomic(path, self.to_json())
            if plot:
                draw_chart(self.rows, plot)
        finally:  # so that a full disk does not lose the results
            print(self.to_text())
        if path:
            print(f"\nwritten to {path}")


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the command-line options of a benchmark as a dict for JSON."""
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()
    }


def format_number(value: float) -> str:
    """Format a number with three significant digits; from 100 on, as a whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _row_cells(row: Row) -> list[str]:
    speed = "" if row.bytes_per_second is None else f"{row.bytes_per_second / 1e6:,.0f} MB/s"
    return [
        row.name,
        format_number(row.value),
        f"{format_number(row.low)} .. {format_number(row.high)}",
        row.unit,
        speed,
    ]


def _goal_cells(goal: Goal) -> list[str]:
    sign = "<=" if goal.at_most else ">="
    return [
        goal.what,
        f"{sign} {format_number(goal.goal)} {goal.unit}",
        f"{format_number(goal.value)} {goal.unit}",
        f"{format_number(goal.low)} .. {format_number(goal.high)}",
        "met" if goal.met else "MISSED",
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  " + "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )
