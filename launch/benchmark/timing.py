"""Measure the rates of several methods in interleaved rounds: A B C A B C."""

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
    """One of the compared methods: a name, and how to run and time it.

    start: returns a generator that does the work and yields the number of samples since
    the last yield; settle: whether to warm up before the measurement; before: called
    before each measurement, not timed; max_samples: ends a measurement early.
    """

    name: str
    start: Callable[[], CountStream]
    settle: bool = True  # so that the queues of a loader are full at the start
    before: Callable[[], None] = field(default=lambda: None)
    clock: Callable[[], float] = time.perf_counter
    max_samples: float = float("inf")  # one pass, if a second pass would be faster


@dataclass(frozen=True)
class Measurements:
    """The values of one measured quantity, one per round."""

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
        """Return measurements in which each round's value is multiplied by `factor`."""
        return Measurements(tuple(factor * value for value in self.rounds))

    def over(self, other: Measurements) -> Measurements:
        """Return each round's value divided by the value of `other` in that round."""
        return Measurements(
            tuple(mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True))
        )


def measure(method: Method, seconds: float) -> float:
    """Run a method once and return its samples per second.

    The measurement ends after `seconds`, or after the method's `max_samples` samples.
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
    """Measure every method once per round; return the samples per second by name.

    label: text of the progress line; seconds: duration of each measurement.
    """
    rates: dict[str, list[float]] = {method.name: [] for method in methods}
    with ProgressLine(label, rounds * len(methods), "measurements") as progress:
        for turn in range(rounds):
            # In turns, so that other load on the machine affects all methods equally.
            for position, method in enumerate(methods, 1):
                rates[method.name].append(measure(method, seconds))
                progress.advance_to(turn * len(methods) + position)
    return {name: Measurements(tuple(values)) for name, values in rates.items()}
