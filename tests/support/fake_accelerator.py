"""A stand-in for accelerate's `Accelerator` with the parts that `Journal` uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from colortrain.recipes import get_recipe
from colortrain.training.journal import Journal


class FakeAccelerator:
    """Records what `Journal` passes to accelerate."""

    def __init__(self, *trackers: Any, main: bool = True) -> None:
        self.is_main_process, self.trackers = main, list(trackers)
        self.init_kwargs: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.logged: list[tuple[dict[str, float], int]] = []

    def init_trackers(
        self, project: str, config: dict[str, Any], init_kwargs: dict[str, Any]
    ) -> None:
        """Record the arguments."""
        self.init_kwargs, self.config = init_kwargs, config

    def log(self, values: dict[str, float], step: int) -> None:
        """Record the arguments."""
        self.logged.append((values, step))


def start_journal(run: Path, accelerator: Any, step: int = 0) -> Journal:
    """Return the journal of a run that starts at `step`."""
    journal = Journal(run, accelerator)
    journal.start(get_recipe("nampouri_unet"), step)
    return journal
