"""What goes wrong slowly, told while it can still be stopped: sepia, bright spots, a critic that has won, slow data."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from colortrain.losses.adversarial import BCE, LSGAN
from colortrain.recipe import Objective

SEPIA = 0.6  # of the truth's colourfulness
WAIT = 0.05  # of the time
_VALIDATIONS, _LINES = 3, 10  # in a row, before anything is said
_SPOTS = 0.1  # % of pixels: fewer are not worth a word
_MARGIN = 0.05  # of a critic's scores from its labels, as probabilities


class Alarms:
    """Reads a run's lines as they are written; each trouble is told once, and again only after it was over."""

    def __init__(self, objective: Objective) -> None:
        weight = objective.adversarial_weight
        self.adversarial = objective.adversarial
        self.game_to_come = not weight.at(0) and any(value for _, value in weight.points)
        self.ratios: deque[float] = deque(maxlen=_VALIDATIONS)
        self.spots: deque[float] = deque(maxlen=_VALIDATIONS)
        self.won: deque[bool] = deque(maxlen=_LINES)
        self.waits: deque[float] = deque(maxlen=_LINES)
        self.told: set[str] = set()

    def see(self, kind: str, values: Mapping[str, Any]) -> dict[str, str]:
        """What has to be said after a line, by what it is about."""
        if kind == "validation":
            self._see_scores(values.get("metrics", {}))
            return self._new(("sepia", "bright_spots"))
        if kind == "train":
            self.game_to_come = self.game_to_come and "adversarial" not in values.get("losses", {})
            self.won.append(self._has_won(values.get("losses", {})))
            self.waits.append(values.get("data_wait", 0.0))
            return self._new(("critic", "data_wait"))
        return {}

    def _see_scores(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        for name, kept in (("colourfulness_ratio", self.ratios), ("bright_spots", self.spots)):
            if kept is self.ratios and self.game_to_come:
                continue  # the game is what brings colour: a recipe that begins without it is dull by design
            value = metrics.get(name, {}).get("generated")
            if value is not None and math.isfinite(value):
                kept.append(value)

    def _new(self, about: tuple[str, ...]) -> dict[str, str]:
        texts = {name: getattr(self, f"_{name}")() for name in about}
        found = {name: text for name, text in texts.items() if text and name not in self.told}
        self.told = (self.told - set(about)) | {name for name, text in texts.items() if text}
        return found

    def _sepia(self) -> str | None:
        if len(self.ratios) < _VALIDATIONS or max(self.ratios) >= SEPIA:
            return None
        return (
            f"colourfulness has been below {SEPIA} of the photographs' for {_VALIDATIONS} validations "
            f"({self.ratios[-1]:.2f} now): if it stays, colours are on their way to sepia; "
            "objective.adversarial_weight or a rebalanced loss bring them back"
        )

    def _bright_spots(self) -> str | None:
        values = list(self.spots)
        grows = len(values) == _VALIDATIONS and values == sorted(set(values))
        if not grows or values[-1] < max(_SPOTS, 2 * values[0]):
            return None
        return (
            f"bright spots grow: {values[-1]:.2f} % of the pixels, from {values[0]:.2f} % "
            f"{_VALIDATIONS - 1} validations ago; a lower critic_adam.lr or a gradient penalty holds them down"
        )

    def _has_won(self, losses: Mapping[str, float]) -> bool:
        """Whether mean scores are as good as the labels; those of a Wasserstein or hinge critic have no such end."""
        real, fake = losses.get("score_real"), losses.get("score_fake")
        if real is None or fake is None or not (math.isfinite(real) and math.isfinite(fake)):
            return False
        if isinstance(self.adversarial, BCE):
            above = _probability(real) > self.adversarial.real_label - _MARGIN
            return above and _probability(fake) < self.adversarial.fake_label + _MARGIN
        return (
            isinstance(self.adversarial, LSGAN) and abs(real - 1) < _MARGIN and abs(fake) < _MARGIN
        )

    def _critic(self) -> str | None:
        lasts = (
            any(self.won) if "critic" in self.told else all(self.won)
        )  # over when it has not won for as long
        if len(self.won) < _LINES or not lasts:
            return None
        return (
            "the critic wins outright: it tells nearly every picture from a photograph, and the generator learns "
            "little from that; lower critic_adam.lr, soften its labels, or add a gradient penalty"
        )

    def _data_wait(self) -> str | None:
        share = sum(self.waits) / _LINES
        if len(self.waits) < _LINES or share <= WAIT:
            return None
        return f"{share:.0%} of the time goes into waiting for data: give more --workers, or shards on a faster disk"


def _probability(score: float) -> float:
    return 1 / (1 + math.exp(-min(max(score, -50.0), 50.0)))
