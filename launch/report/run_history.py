"""Read from the folder of a run everything that the report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from colortrain.recipe import Recipe, load_recipe
from colortrain.runs.history import read_evaluation, read_journal
from colortrain.runs.layout import recipe_file, sample_files
from shards.errors import UserError

Line = dict[str, Any]
End = Literal["finished", "stopped", "killed", "open"]


@dataclass(frozen=True)
class Session:
    """One session of a run: the time from one start of training to its end.

    started, ended: times of its first and last journal line, in seconds since 1970;
    first, last: number of images that the run had seen at its start and at its end;
    world: number of processes.
    """

    started: float
    ended: float
    first: int
    last: int
    end: End  # "finished": training was completed; "stopped": by a signal
    world: int
    device: str


@dataclass(frozen=True)
class RunHistory:
    """Everything that the report reads from a run folder.

    train, validation, other_lines: the lines of the journal (metrics.jsonl) by kind;
    samples: (step, file) of each sample grid; scores: the newest scores of the run, or
    {}.
    """

    run: Path
    name: str
    recipe: Recipe
    train: tuple[Line, ...]
    validation: tuple[Line, ...]
    other_lines: tuple[Line, ...]
    sessions: tuple[Session, ...]
    scores: dict[str, Any]
    samples: tuple[tuple[int, Path], ...]

    @property
    def images(self) -> int:
        """The number of images that the run has seen."""
        lines = (*self.train, *self.other_lines)
        return max((int(line.get("images", 0)) for line in lines), default=0)

    @property
    def seconds(self) -> float:
        """The seconds spent in training steps, without validation and saving."""
        return float(sum(line.get("seconds", 0.0) for line in self.train))

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The scores as metric -> version ("generated", "grey", ...) -> value."""
        return dict(self.scores.get("metrics", {}))

    @property
    def deviations(self) -> dict[str, dict[str, float]]:
        """The standard deviations of scores: metric -> version -> value."""
        return dict(self.scores.get("deviations", {}))


def read_histories(runs: Sequence[Path]) -> list[RunHistory]:
    """Return the histories of several runs, each with a different name.

    Raises UserError if a folder is not a run folder or is given twice.
    """
    return [read_history(run, name) for run, name in zip(runs, _short_names(runs), strict=True)]


def read_history(run: Path, name: str) -> RunHistory:
    """Return the history of the run in the folder `run`, to be shown as `name`.

    Raises UserError if the folder is not a run folder.
    """
    if not recipe_file(run).is_file():
        raise UserError(
            f"{run} contains no run (no recipe.json): give a run folder of `colortrain train`"
        )
    lines = read_journal(run)
    by_kind = {
        kind: tuple(line for line in lines if line["kind"] == kind)
        for kind in ("train", "validation")
    }
    return RunHistory(
        run=run,
        name=name,
        recipe=load_recipe(recipe_file(run)),
        **by_kind,
        other_lines=tuple(line for line in lines if line["kind"] not in by_kind),
        sessions=tuple(split_sessions(lines)),
        scores=_latest_scores(run, by_kind["validation"]),
        samples=tuple(sample_files(run)),
    )


def _short_names(runs: Sequence[Path]) -> list[str]:
    """Return a different name for each path: its last components, as few as possible.

    Raises UserError if two paths are equal.
    """
    # a/x and b/y become "x" and "y"; a/x and b/x become "a/x" and "b/x".
    parts = [path.absolute().parts for path in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError("a run is given twice: remove one")


def _latest_scores(run: Path, validation: Sequence[Line]) -> dict[str, Any]:
    evaluation = read_evaluation(run)
    last = validation[-1] if validation else {}
    return evaluation if evaluation.get("step", -1) >= last.get("step", -1) else last


def split_sessions(lines: Sequence[Line]) -> list[Session]:
    """Return the sessions of a run, from all lines of its journal."""
    starts = [place for place, line in enumerate(lines) if line["kind"] == "start"]
    parts = [lines[first:end] for first, end in pairwise([*starts, len(lines)])]
    return [_session(part, is_last=number == len(parts)) for number, part in enumerate(parts, 1)]


_ENDS: dict[str, End] = {"end": "finished", "stop": "stopped"}


def _session(lines: Sequence[Line], is_last: bool) -> Session:
    # A last session without an end may still be running; an earlier one was killed.
    start, last = lines[0], lines[-1]
    times = [float(line["time"]) for line in lines if "time" in line] or [0.0]
    return Session(
        started=times[0],
        ended=times[-1],
        first=int(start.get("images", 0)),
        last=max(int(line.get("images", 0)) for line in lines),
        end=_ENDS.get(last["kind"], "open" if is_last else "killed"),
        world=int(start.get("world", 1)),
        device=str(start.get("device", "?")),
    )
