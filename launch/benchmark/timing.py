"""Measure rates in interleaved rounds: A B C A B C.

Other load on the machine then affects all methods equally. A ratio is computed within
each round, and its median over the rounds is reported with the minimum and the maximum.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from shards.progress import ProgressLine

CountStream = Generator[float, None, None]  # yields the number of samples since the last yield
_WARM_UP = 0.2  # warm-up time as a fraction of the measured time


@dataclass(frozen=True)
class Method:
    """One of the methods that are compared: its name, and how to start its stream.

    With `settle`, a warm-up lets queues fill before the clock starts. `before` is
    called before the measured time. `max_samples` ends a measurement early, for example
    after one pass if a second pass would measure something else.
    """

    name: str
    start: Callable[[], CountStream]
    settle: bool = True
    before: Callable[[], None] = field(default=lambda: None)
    clock: Callable[[], float] = time.perf_counter
    max_samples: float = float("inf")


@dataclass(frozen=True)
class Measurements:
    """One value per round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.rounds)

    @property
    def low(self) -> float:
        """The minimum over the rounds."""
        return min(self.rounds)

    @property
    def high(self) -> float:
        """The maximum over the rounds."""
        return max(self.rounds)

    def scaled(self, factor: float) -> Measurements:
        """Return each round's value times `factor`."""
        return Measurements(tuple(factor * value for value in self.rounds))

    def over(self, other: Measurements) -> Measurements:
        """Return the ratio to `other`, round by round."""
        return Measurements(
            tuple(mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True))
        )


def measure(method: Method, seconds: float) -> float:
    """Return the samples per second of a newly started stream.

    The measurement ends after `seconds`, or after `max_samples` samples. With `settle`,
    it is preceded by a warm-up: the first samples, and a fifth of `seconds`.
    """
    method.before()
    clock = method.clock
    start = clock()
    with closing(method.start()) as stream:
        if method.settle:
            _settle(stream, seconds * _WARM_UP, clock)
            start = clock()
        samples = elapsed = 0.0
        while elapsed < seconds and samples < method.max_samples:
            samples += next(stream)
            elapsed = clock() - start
    return samples / max(elapsed, 1e-9)


def _settle(stream: CountStream, seconds: float, clock: Callable[[], float]) -> None:
    next(stream)
    end = clock() + seconds
    while clock() < end:
        next(stream)


def measure_in_turns(
    label: str, methods: Sequence[Method], seconds: float, rounds: int
) -> dict[str, Measurements]:
    """Return the samples per second of every method, by name.

    Each is measured once per round, for `seconds`.
    """
    rates: dict[str, list[float]] = {method.name: [] for method in methods}
    with ProgressLine(label, rounds * len(methods), "measurements") as progress:
        for turn in range(rounds):
            for position, method in enumerate(methods, 1):
                rates[method.name].append(measure(method, seconds))
                progress.advance_to(turn * len(methods) + position)
    return {name: Measurements(tuple(values)) for name, values in rates.items()}
