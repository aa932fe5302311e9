"""What a disturbance costs, in seconds and steps: measured by the tests, printed as a table below `make cluster`."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.support.slurm_lab import journal, steps_of

Note = Callable[
    [str, object], None
]  # pytest's record_property, which carries notes over to the table
_OURS = "cost: "


class Disturbance:
    """Made right before something befalls a run: how far the run had come, and when that was."""

    def __init__(self, run: Path, name: str, note: Note) -> None:
        self.run, self.name, self.note = run, name, note
        self.reached, self.moment = max(steps_of(run, "train"), default=0), time.time()

    def measure(self) -> None:
        """After the run's end: note what it cost."""
        starts = [line for line in journal(self.run, "start") if line["time"] > self.moment]
        again = next(
            line for line in journal(self.run, "train") if line["step"] == starts[0]["step"] + 1
        )
        stops = [line for line in journal(self.run, "stop") if line["time"] > self.moment]
        if stops:  # written once the checkpoint is safe
            self.tell("to a safe checkpoint, s", stops[0]["time"] - self.moment)
        self.tell("to the next start's first step, s", again["time"] - self.moment)
        self.tell(
            "steps lost", max((stops[0]["step"] if stops else self.reached) - starts[0]["step"], 0)
        )

    def tell(self, what: str, value: float) -> None:
        """Note one figure."""
        self.note(f"{_OURS}{self.name}", f"{what}={value:.3f}")


COLUMNS = (
    "noticed, s",
    "to a safe checkpoint, s",
    "to the next start's first step, s",
    "steps lost",
)


def table(notes: Iterable[tuple[str, object]]) -> list[str]:
    """The lines of a Markdown table of all notes; the median where a thing was measured more than once."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, value in notes:
        if name.startswith(_OURS):
            what, _, figure = str(value).rpartition("=")
            found[name.removeprefix(_OURS)][what].append(float(figure))
    if not found:
        return []
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "--:|" * len(COLUMNS)]
    for name, figures in found.items():
        cells = [
            f"{statistics.median(figures[what]):.3g}" if what in figures else "" for what in COLUMNS
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines
