"""Reduce the learning rates when the validation L1 stops improving."""

from __future__ import annotations

import math

from colortrain.recipe import Plateau


class ReduceOnPlateau:
    """Computes the factor by which a run multiplies its learning rates."""

    def __init__(self, config: Plateau) -> None:
        self.config = config
        # lowest score; validations since then or since the last reduction; factor
        self.best, self.num_bad, self.factor = math.inf, 0, 1.0

    def step(self, score: float) -> None:
        """Record the score of one validation, lower is better, and update `factor`."""
        if score < self.best:
            self.best, self.num_bad = score, 0
            return
        self.num_bad += 1
        if self.config.patience and self.num_bad >= self.config.patience:
            self.factor *= self.config.factor
            self.num_bad = 0

    def state(self) -> list[float | None]:
        """Return the state as JSON values for a checkpoint: [best, num_bad, factor]."""
        return [None if math.isinf(self.best) else self.best, self.num_bad, self.factor]

    def load(self, state: list[float | None]) -> None:
        """Restore the state that the method `state` returned."""
        best, num_bad, factor = state
        assert num_bad is not None
        assert factor is not None
        self.best = math.inf if best is None else best
        self.num_bad, self.factor = int(num_bad), factor
