"""Rates are measured in interleaved rounds; ratios are computed within rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from launch.benchmark.timing import (
    CountStream,
    Measurements,
    Method,
    measure,
    measure_in_turns,
)


class Clock:
    """A clock that a stream moves forward."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def stream(self, seconds: Sequence[float]) -> CountStream:
        """Yield 10 samples after each of `seconds`."""
        for each in seconds:
            self.now += each
            yield 10


def test_a_rate_is_samples_over_time() -> None:
    clock = Clock()
    steady = Method("steady", lambda: clock.stream([0.5] * 9), settle=False, clock=clock)
    assert measure(steady, seconds=2) == 40 / 2
    assert measure(replace(steady, max_samples=25), seconds=9) == 30 / 1.5


def test_the_warm_up_is_not_measured() -> None:
    clock = Clock()
    seconds = [60, 0.5, 0.5, 0.5, 0.5]
    slow_start = Method("slow start", lambda: clock.stream(seconds), clock=clock)
    assert measure(slow_start, seconds=1) == 20 / 1  # without the first minute


def test_every_method_is_measured_once_per_round() -> None:
    turns: list[str] = []

    def method(name: str) -> Method:
        clock = Clock()
        return Method(
            name,
            lambda: clock.stream([1]),
            settle=False,
            before=lambda: turns.append(name),
            clock=clock,
        )

    rates = measure_in_turns("turns", [method("a"), method("b")], seconds=1, rounds=3)
    assert turns == ["a", "b"] * 3
    assert rates["a"].rounds == (10, 10, 10)


def test_ratios_are_computed_within_rounds() -> None:
    ratio = Measurements((10.0, 40.0, 90.0)).over(Measurements((1.0, 2.0, 3.0)))
    assert ratio.rounds == (10, 20, 30)
    assert (ratio.median, ratio.low, ratio.high) == (20, 10, 30)
    assert ratio.scaled(0.5).rounds == (5, 10, 15)
