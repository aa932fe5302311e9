"""The options of `colortrain reproduce`, and the numbers of images it uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colortrain.scale_down import WITHOUT_DOWNLOADS, PretrainedWeights


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """The options of `colortrain reproduce`, except --budget and --photos.

    table: name of the results table, such as "nazeri"; base_channels: width of the
    networks, or None for the published width; limit: number of held-out images to
    score, or None for all; weights: pretrained weights of the systems that need them;
    stretch_schedules: whether schedules span the run.
    """

    table: str
    source: Path
    out: Path
    recipes: tuple[str, ...]
    seeds: tuple[int, ...]
    base_channels: int | None
    limit: int | None
    weights: PretrainedWeights = WITHOUT_DOWNLOADS
    stretch_schedules: bool = False

    def shared(self) -> dict[str, Any]:
        """Return the options that all rows of the results table share, for JSON."""
        # Recipes and seeds only select rows.
        return {"table": self.table, "base_channels": self.base_channels, "limit": self.limit}


@dataclass(frozen=True)
class Plan:
    """How many images are used for training and for scores; stored in OUT/plan.json.

    images: number of images that each network is trained on; limit: number of held-out
    images to score (None: all); judge_images: number of images that the feature
    classifier is trained on.
    """

    images: int
    limit: int | None
    judge_images: int
