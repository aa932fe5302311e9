"""Detect slow failures of a training run while it can still be stopped.

The failures are faded colours, growing bright spots, a critic that separates nearly all
generated images from photographs, slow data loading, and processes that differ by more
than rounding.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from colortrain.losses.adversarial import BCE, LSGAN
from colortrain.recipe import Objective

SEPIA = 0.6  # colourfulness / that of the photographs; colours below this are faded
WAIT = 0.05  # fraction of the time spent waiting for data; more is too slow
_NUM_VALIDATIONS, _NUM_LINES = 3, 10  # consecutive validations and lines that must show a problem
_MIN_SPOTS = 0.1  # % of pixels; there is no warning about fewer bright spots
# Relative difference of tensors between processes that --resync made equal. Rounding
# causes far less between two saves: updates use the same gradients.
_MAX_DIFFERENCE = 0.01
_MARGIN = 0.05  # largest distance of a saturated critic's mean scores from its labels


class Alarms:
    """Checks each line that a run writes to metrics.jsonl, and returns warnings."""

    def __init__(self, objective: Objective) -> None:
        self.adversarial = objective.adversarial
        # the adversarial loss starts later in the run
        self.adversarial_pending = (
            not objective.adversarial_weight.at(0) and objective.has_adversarial_weight
        )
        self.ratios: deque[float] = deque(maxlen=_NUM_VALIDATIONS)
        self.spots: deque[float] = deque(maxlen=_NUM_VALIDATIONS)
        self.critic_saturated: deque[bool] = deque(maxlen=_NUM_LINES)
        self.waits: deque[float] = deque(maxlen=_NUM_LINES)
        self.difference = 0.0
        self.active: set[str] = set()

    def update(self, kind: str, values: Mapping[str, Any]) -> dict[str, str]:
        """Process one line of metrics.jsonl; return new warnings as subject -> text.

        The subjects are "sepia", "bright_spots", "critic", "data_wait" and "resync".
        """
        if kind == "resync":
            difference = values.get("difference")  # None: infinite
            self.difference = math.inf if difference is None else difference
            return self._new_warnings(("resync",))
        if kind == "validation":
            self._add_scores(values.get("metrics", {}))
            return self._new_warnings(("sepia", "bright_spots"))
        if kind == "train":
            losses = values.get("losses", {})
            self.adversarial_pending = self.adversarial_pending and "adversarial" not in losses
            self.critic_saturated.append(self._critic_saturated(losses))
            self.waits.append(values.get("data_wait", 0.0))
            return self._new_warnings(("critic", "data_wait"))
        return {}

    def _add_scores(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        for name, history in (("colourfulness_ratio", self.ratios), ("bright_spots", self.spots)):
            if history is self.ratios and self.adversarial_pending:
                continue  # without the adversarial loss, faded colours are expected
            value = metrics.get(name, {}).get("generated")
            if value is not None and math.isfinite(value):
                history.append(value)

    def _new_warnings(self, subjects: tuple[str, ...]) -> dict[str, str]:
        texts = {name: getattr(self, f"_{name}")() for name in subjects}
        # a warning is given again only if its cause has disappeared and appeared once
        # more
        new = {name: text for name, text in texts.items() if text and name not in self.active}
        self.active = (self.active - set(subjects)) | {name for name, text in texts.items() if text}
        return new

    def _resync(self) -> str | None:
        if self.difference <= _MAX_DIFFERENCE:
            return None
        return (
            f"before --resync, the tensors of the processes differed by {self.difference:.2g} of "
            "their largest value, more than rounding explains: check the machines"
        )

    def _sepia(self) -> str | None:
        if len(self.ratios) < _NUM_VALIDATIONS or max(self.ratios) >= SEPIA:
            return None
        return (
            f"colourfulness has been below {SEPIA} times that of the photographs for "
            f"{_NUM_VALIDATIONS} validations (now {self.ratios[-1]:.2f}): colours may fade to "
            "sepia; a higher "
            "objective.adversarial_weight or a rebalanced loss makes them stronger"
        )

    def _bright_spots(self) -> str | None:
        values = list(self.spots)
        grows = len(values) == _NUM_VALIDATIONS and values == sorted(set(values))
        if not grows or values[-1] < max(_MIN_SPOTS, 2 * values[0]):
            return None
        return (
            f"bright spots grow: {values[-1]:.2f} % of the pixels, {values[0]:.2f} % "
            f"{_NUM_VALIDATIONS - 1} validations ago; a lower critic_adam.lr or a gradient "
            "penalty reduces them"
        )

    def _critic_saturated(self, losses: Mapping[str, float]) -> bool:
        """Return whether the critic's mean scores are close to its training labels."""
        real, fake = losses.get("score_real"), losses.get("score_fake")
        if real is None or fake is None or not (math.isfinite(real) and math.isfinite(fake)):
            return False
        if isinstance(self.adversarial, BCE):
            above = _sigmoid(real) > self.adversarial.real_label - _MARGIN
            return above and _sigmoid(fake) < self.adversarial.fake_label + _MARGIN
        # Wasserstein and hinge losses have no labels
        return (
            isinstance(self.adversarial, LSGAN) and abs(real - 1) < _MARGIN and abs(fake) < _MARGIN
        )

    def _critic(self) -> str | None:
        # an active warning ends when none of the last lines shows a saturated critic
        applies = (
            any(self.critic_saturated) if "critic" in self.active else all(self.critic_saturated)
        )
        if len(self.critic_saturated) < _NUM_LINES or not applies:
            return None
        return (
            "the critic separates nearly all generated images from photographs, so the generator "
            "learns little from it; lower critic_adam.lr, soften its labels, or add a gradient "
            "penalty"
        )

    def _data_wait(self) -> str | None:
        fraction = sum(self.waits) / _NUM_LINES
        if len(self.waits) < _NUM_LINES or fraction <= WAIT:
            return None
        return (
            f"{fraction:.0%} of the time is spent waiting for data: use more --workers, "
            "or put the shards on a faster disk"
        )


def _sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-min(max(score, -50.0), 50.0)))
