"""When a run validates and saves: every few steps, unless that takes too much time.

What is skipped depends on measured times, so it differs from run to run. The weights do
not depend on it: rules that change a run by its scores turn the skipping off.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from colortrain.recipe import Recipe

DEFAULT_OVERHEAD = 0.05
MIN_TIMES = 10  # that a run validates and saves, if its recipe's intervals are too long


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """The largest fractions of a run's time that validating and saving may take.

    With 1, nothing is skipped.
    """

    validation: float = 1.0
    saving: float = 1.0


def divided(fraction: float) -> Overhead:
    """Return limits for validating and saving: half of `fraction` each, but 1 for 1."""
    each = fraction if fraction == 1 else fraction / 2
    return Overhead(validation=each, saving=each)


class PacedTask:
    """A task that is due every few steps, and skipped while it takes too much time."""

    def __init__(
        self, every: int, limit: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # every: steps; limit: largest fraction of the time since the task last ran
        self.every, self.limit, self.clock = every, limit, clock
        self.seconds, self.ended = 0.0, clock()  # the last time that it ran
        self.skipped = 0  # times since then

    def is_due(self, step: int) -> bool:
        """Return whether the task is scheduled for a step."""
        return step % self.every == 0

    def fits(self) -> bool:
        """Return whether the task, if it ran now, would keep below its limit.

        It is assumed to take as long as the last time; the first time, it fits.
        """
        return self.seconds <= self.limit * (self.clock() - self.ended + self.seconds)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Measure how long the task takes, which is the content of the `with` block."""
        started = self.clock()
        yield
        self.ended, self.skipped = self.clock(), 0
        self.seconds = self.ended - started


@dataclass(frozen=True)
class Due:
    """What a run does at a step; `scheduled` is true even if all of it is skipped."""

    scheduled: bool
    validate: bool
    save: bool


class Cadence:
    """Decides at each step whether a run validates and saves, the same on all ranks."""

    def __init__(self, recipe: Recipe, overhead: Overhead, accelerator: Accelerator) -> None:
        self.recipe, self.accelerator = recipe, accelerator
        limit = 1.0 if depends_on_scores(recipe) else overhead.validation
        self.validation = PacedTask(recipe.evaluate_every, limit)
        self.saving = PacedTask(recipe.checkpoint_every, overhead.saving)
        self.tasks = {"validation": self.validation, "saving": self.saving}

    def due(self, step: int, last: bool) -> Due:
        """Return what is due at a step; nothing is skipped in the `last` one.

        All ranks must call it after every step.
        """
        scheduled = [last or task.is_due(step) for task in self.tasks.values()]
        if last or not any(scheduled) or all(task.limit >= 1 for task in self.tasks.values()):
            return Due(any(scheduled), *scheduled)
        kept = bool(self.recipe.keep_every) and step % self.recipe.keep_every == 0
        fitting = [self.validation.fits(), self.saving.fits() or kept]
        chosen = self._of_rank_0(
            [one and other for one, other in zip(scheduled, fitting, strict=True)]
        )
        for task, planned, runs in zip(self.tasks.values(), scheduled, chosen, strict=True):
            task.skipped += planned and not runs
        return Due(True, *chosen)

    def _of_rank_0(self, flags: list[bool]) -> list[bool]:
        """Return the flags of rank 0: clocks differ, and all ranks must do the same."""
        if self.accelerator.num_processes == 1:
            return flags
        shared = torch.tensor(flags, dtype=torch.uint8, device=self.accelerator.device)
        torch.distributed.broadcast(shared, 0)
        return [bool(flag) for flag in shared.tolist()]

    def limits(self) -> dict[str, float]:
        """Return the largest fraction of the time that each task may take."""
        return {name: task.limit for name, task in self.tasks.items()}

    def describe(self, validates: bool) -> str:
        """Return in one line how often the run validates and saves.

        `validates` says whether it has samples for validation.
        """
        names = {"validation": "validates", "saving": "saves"}
        parts = [
            f"{names[name]} every {task.every:,} steps{_limit(task)}"
            for name, task in self.tasks.items()
            if validates or name != "validation"
        ]
        if validates and depends_on_scores(self.recipe):
            parts[0] += f" exactly, because {depends_on_scores(self.recipe)}"
        return ", ".join(parts)


def _limit(task: PacedTask) -> str:
    return "" if task.limit >= 1 else f" (at most {100 * task.limit:g} % of the time)"


def depends_on_scores(recipe: Recipe) -> str:
    """Return why a run's result depends on when it validates; "" if it does not."""
    if recipe.plateau.patience:
        return "plateau reduces the learning rates by the scores"
    return "keep_best chooses a checkpoint by the scores" if recipe.keep_best else ""


def with_shorter_intervals(recipe: Recipe, dataset_size: int, given: Collection[str]) -> Recipe:
    """Return a recipe that validates and saves at least every tenth of its run.

    `dataset_size` is the number of training samples. The fields that `given` names stay
    as they are, and also `evaluate_every` if the learning rates depend on the number of
    validations, and `checkpoint_every` if there is a `keep_every`.
    """
    longest = max(1, recipe.total_steps(dataset_size) // MIN_TIMES)
    kept = {*given}
    kept |= {"evaluate_every"} if recipe.plateau.patience else set()
    kept |= {"checkpoint_every"} if recipe.keep_every else set()
    return dataclasses.replace(
        recipe,
        **{
            name: min(getattr(recipe, name), longest)
            for name in ("evaluate_every", "checkpoint_every")
            if name not in kept
        },
    )
