"""Learning rates that fall when validation stands still."""

from __future__ import annotations

import math

from colortrain.recipe import Plateau


class PlateauWatch:
    """Follows a `Plateau`: `see` each evaluation's score, multiply the learning rates by `factor`."""

    def __init__(self, rule: Plateau) -> None:
        self.rule = rule
        self.best, self.since, self.factor = math.inf, 0, 1.0

    def see(self, score: float) -> None:
        """Take note of one evaluation; lower is better."""
        if score < self.best:
            self.best, self.since = score, 0
            return
        self.since += 1
        if self.rule.patience and self.since >= self.rule.patience:
            self.factor *= self.rule.factor
            self.since = 0

    def state(self) -> list[float | None]:
        """What a checkpoint keeps, as plain JSON."""
        return [None if math.isinf(self.best) else self.best, self.since, self.factor]

    def load(self, state: list[float | None]) -> None:
        """Go on from what `state` gave."""
        best, since, factor = state
        assert since is not None
        assert factor is not None
        self.best, self.since, self.factor = math.inf if best is None else best, int(since), factor
