"""What a run folder tells: its recipe, the lines of its journal, its starts and ends, its scores and sample grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from colortrain.recipe import Recipe, load_recipe
from colortrain.runs.history import read_document, read_journal
from colortrain.runs.layout import evaluation_file, recipe_file, sample_files
from shards.errors import UserError

Line = dict[str, Any]
How = Literal["finished", "stopped", "killed", "open"]


@dataclass(frozen=True)
class Session:
    """One process's share of a run: from a start to its end, to a signal ("stopped"), or to its last line.

    "killed" wrote no end and was followed by another start; "open" is the last, and may be at work still. Times are
    seconds since 1970, `first` and `last` are images.
    """

    began: float
    ended: float
    first: int
    last: int
    how: How
    world: int
    device: str


@dataclass(frozen=True)
class Story:
    """All that is known of a run from its folder.

    `scores` is evaluation.json unless the last validation is of a later step, else that validation, else empty.
    """

    run: Path
    name: str
    recipe: Recipe
    train: tuple[Line, ...]
    validation: tuple[Line, ...]
    others: tuple[Line, ...]
    sessions: tuple[Session, ...]
    scores: dict[str, Any]
    samples: tuple[tuple[int, Path], ...]

    @property
    def images(self) -> int:
        """Images seen."""
        return max((int(line.get("images", 0)) for line in (*self.train, *self.others)), default=0)

    @property
    def seconds(self) -> float:
        """Seconds of training proper, without validations and saving."""
        return float(sum(line.get("seconds", 0.0) for line in self.train))

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Metric -> version ("generated", "grey", ...) -> value."""
        return dict(self.scores.get("metrics", {}))


def read_stories(runs: Sequence[Path]) -> list[Story]:
    """The runs' stories, under names that tell them apart; raises `UserError` for what is no run folder."""
    return [read_story(run, name) for run, name in zip(runs, _names(runs), strict=True)]


def read_story(run: Path, name: str) -> Story:
    """One run's story."""
    if not recipe_file(run).is_file():
        raise UserError(
            f"{run} holds no run (no recipe.json): give folders that launch.train wrote"
        )
    lines = [line for line in read_journal(run) if "kind" in line and "step" in line]
    by_kind = {
        kind: tuple(line for line in lines if line["kind"] == kind)
        for kind in ("train", "validation")
    }
    return Story(
        run=run,
        name=name,
        recipe=load_recipe(recipe_file(run)),
        **by_kind,
        others=tuple(line for line in lines if line["kind"] not in by_kind),
        sessions=tuple(sessions_of(lines)),
        scores=_scores(run, by_kind["validation"]),
        samples=tuple(sample_files(run)),
    )


def _names(runs: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ."""
    parts = [path.absolute().parts for path in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError("one run is given twice")


def _scores(run: Path, validation: Sequence[Line]) -> dict[str, Any]:
    found, last = read_document(evaluation_file(run)), validation[-1] if validation else {}
    return found if found.get("step", -1) >= last.get("step", -1) else last


def sessions_of(lines: Sequence[Line]) -> list[Session]:
    """Starts and what became of each, in the order of the journal."""
    starts = [place for place, line in enumerate(lines) if line["kind"] == "start"]
    shares = [lines[begin:end] for begin, end in pairwise([*starts, len(lines)])]
    return [_session(share, number == len(shares)) for number, share in enumerate(shares, 1)]


_HOW: dict[str, How] = {"end": "finished", "stop": "stopped"}


def _session(share: Sequence[Line], is_last: bool) -> Session:
    start, last = share[0], share[-1]
    how = _HOW.get(last["kind"], "open" if is_last else "killed")
    images = max(int(line.get("images", 0)) for line in share)
    times = [float(line["time"]) for line in share if "time" in line] or [0.0]
    return Session(
        times[0],
        times[-1],
        int(start.get("images", 0)),
        images,
        how,
        int(start.get("world", 1)),
        str(start.get("device", "?")),
    )
