"""Progress display: a live bar on a terminal, a line every 10 s in logs."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0


class ProgressLine:
    """A context manager that shows how many items are done, the rate and the time left.

    `shown=False` disables all output.

    >>> with ProgressLine("packing", total=1523, unit="images") as progress:
    ...     progress.advance_to(12, {"left out": "1"})
    """

    def __init__(
        self, label: str, total: int, unit: str, start: int = 0, shown: bool = True
    ) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.start = self.done = start
        self.start_time = self.last_line = time.monotonic()
        self.details: Mapping[str, str] = {}
        self.shown = shown
        console = Console(stderr=True)
        self.bar = _bar(console) if shown and console.is_terminal else None
        self.task = (
            self.bar.add_task(label, total=total, completed=start, rate="", details="")
            if self.bar
            else None
        )

    def __enter__(self) -> ProgressLine:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar:
            self.bar.stop()
        elif self.shown and kind is None:
            self._print_line()

    @property
    def rate(self) -> float:
        """Items done per second since this object was created."""
        return (self.done - self.start) / max(time.monotonic() - self.start_time, 1e-9)

    def advance_to(self, done: int, details: Mapping[str, str] | None = None) -> None:
        """Set how many items are done so far; `details` are shown next to the rate."""
        self.done = done
        self.details = details or self.details
        if self.bar and self.task is not None:
            self.bar.update(
                self.task, completed=done, rate=self._rate_text(), details=self._details_text()
            )
        elif self.shown and time.monotonic() - self.last_line > _SECONDS_BETWEEN_LINES:
            self._print_line()

    def _rate_text(self) -> str:
        return f"{self.rate:,.1f} {self.unit}/s"

    def _details_text(self) -> str:
        return "  ".join(f"{name} {value}" for name, value in self.details.items())

    def _print_line(self) -> None:
        self.last_line = time.monotonic()
        left = (self.total - self.done) / self.rate if self.rate > 0 else float("inf")
        until = f"{left:.0f} s left" if left < 1e8 else "time left unknown"
        text = (
            f"{self.label} {self.done:,}/{self.total:,} {self.unit}  {self._rate_text()}  {until}"
        )
        print(f"{text}  {self._details_text()}".rstrip(), file=sys.stderr, flush=True)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[details]}"),
        console=console,
        transient=False,
    )
