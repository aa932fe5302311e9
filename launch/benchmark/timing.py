"""Rates measured in turns, A B C A B C, so that whatever else the machine does meanwhile falls on all alike.

A ratio is taken inside each round and the median of the rounds is reported with the least and the greatest.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from shards.progress import ProgressLine

Stream = Generator[float, None, None]  # each turn says how many samples it delivered
_WARM_UP = 0.2  # share of the measured time that passes before it


@dataclass(frozen=True)
class Contestant:
    """A name in the table, and how to start its stream anew; `settle` lets queues fill before the clock starts.

    `most` samples end a measurement before its time is over: one pass, where a second would be another thing.
    """

    name: str
    start: Callable[[], Stream]
    settle: bool = True
    before: Callable[[], None] = field(default=lambda: None)  # outside the clock
    clock: Callable[[], float] = time.perf_counter
    most: float = float("inf")


@dataclass(frozen=True)
class Figures:
    """One figure per round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def low(self) -> float:
        return min(self.rounds)

    @property
    def high(self) -> float:
        return max(self.rounds)

    def times(self, factor: float) -> Figures:
        """Every round's figure times `factor`."""
        return Figures(tuple(factor * each for each in self.rounds))

    def over(self, other: Figures) -> Figures:
        """The ratio to `other`, round by round."""
        return Figures(
            tuple(mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True))
        )


def measure(contestant: Contestant, seconds: float) -> float:
    """Samples a second of a stream started anew, until `seconds` are over or its `most` samples came.

    A stream that settles is timed from after its first delivery and a fifth of the time; another from its start.
    """
    contestant.before()
    clock = contestant.clock
    began = clock()
    with closing(contestant.start()) as stream:
        if contestant.settle:
            _settle(stream, seconds * _WARM_UP, clock)
            began = clock()
        done = now = 0.0
        while now < seconds and done < contestant.most:
            done += next(stream)
            now = clock() - began
    return done / max(now, 1e-9)


def _settle(stream: Stream, seconds: float, clock: Callable[[], float]) -> None:
    next(stream)
    until = clock() + seconds
    while clock() < until:
        next(stream)


def in_turns(
    label: str, contestants: Sequence[Contestant], seconds: float, rounds: int
) -> dict[str, Figures]:
    """Measure every contestant once a round, `seconds` a time; samples a second by name."""
    found: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    with ProgressLine(label, rounds * len(contestants), "measurements") as progress:
        for turn in range(rounds):
            for place, contestant in enumerate(contestants, 1):
                found[contestant.name].append(measure(contestant, seconds))
                progress.advance_to(turn * len(contestants) + place)
    return {name: Figures(tuple(rates)) for name, rates in found.items()}
