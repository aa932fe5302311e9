"""Measure how much the colours of a video flicker."""

from __future__ import annotations

import numpy as np

STILL = 1.0  # pixels whose L changes by less between two frames count as still


class Flicker:
    """The flicker of a video: how much the colours of still pixels change."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0
        self._previous: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, L: np.ndarray, ab: np.ndarray) -> None:
        """Add the next frame: L (h, w) in [0, 100] and ab (2, h, w) in CIELAB units."""
        if self._previous is not None:
            still = np.abs(L - self._previous[0]) < STILL
            distance = np.sqrt(np.square(ab - self._previous[1]).sum(0))
            self.total += float(distance[still].sum())
            self.count += int(still.sum())
        self._previous = (L, ab)

    @property
    def mean(self) -> float:
        """The mean change of a still pixel's ab between frames, in CIELAB units.

        NaN if no pixel was still.
        """
        return self.total / self.count if self.count else float("nan")
