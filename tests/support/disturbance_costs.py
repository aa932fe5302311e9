"""The cost of disturbances in seconds and steps.

The tests measure it; `make cluster` prints it as a table after them.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.support.dev_cluster import journal, steps_of

# pytest's `record_property`, whose records reach the terminal summary
Record = Callable[[str, object], None]
_PREFIX = "cost: "
COLUMNS = (
    "noticed, s",
    "to a safe checkpoint, s",
    "to the next start's first step, s",
    "steps lost",
)


class Disturbance:
    """The step of a run and the time, immediately before the run is disturbed."""

    def __init__(self, run: Path, name: str, record: Record) -> None:
        self._run, self._name, self._record = run, name, record
        self.step, self.time = max(steps_of(run, "train"), default=0), time.time()

    def measure(self) -> None:
        """Record the cost, after the end of the run."""
        starts = [line for line in journal(self._run, "start") if line["time"] > self.time]
        first_step = next(
            line for line in journal(self._run, "train") if line["step"] == starts[0]["step"] + 1
        )
        stops = [line for line in journal(self._run, "stop") if line["time"] > self.time]
        if stops:  # written once the checkpoint is complete
            self.record("to a safe checkpoint, s", stops[0]["time"] - self.time)
        self.record("to the next start's first step, s", first_step["time"] - self.time)
        reached = stops[0]["step"] if stops else self.step
        self.record("steps lost", max(reached - starts[0]["step"], 0))

    def record(self, column: str, value: float) -> None:
        """Record one value of the table."""
        self._record(f"{_PREFIX}{self._name}", f"{column}={value:.3f}")


def table(records: Iterable[tuple[str, object]]) -> list[str]:
    """Return the lines of a Markdown table, with medians of repeated measurements."""
    costs: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, value in records:
        if name.startswith(_PREFIX):
            column, _, number = str(value).rpartition("=")
            costs[name.removeprefix(_PREFIX)][column].append(float(number))
    if not costs:
        return []
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "--:|" * len(COLUMNS)]
    for name, values in costs.items():
        cells = [
            f"{statistics.median(values[column]):.3g}" if column in values else ""
            for column in COLUMNS
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines
