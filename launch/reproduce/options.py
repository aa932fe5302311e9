"""The options of `colortrain reproduce`, and the plan that follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """The options of the command, without the budget.

    `base_channels` is None for the published width of each recipe; `limit` is None to
    score all held-out images.
    """

    table: str
    source: Path
    out: Path
    recipes: tuple[str, ...]
    seeds: tuple[int, ...]
    base_channels: int | None
    limit: int | None

    def shared(self) -> dict[str, Any]:
        """Return the options that all rows of a table have in common, for JSON.

        They do not include recipes and seeds, which only select rows.
        """
        return {"table": self.table, "base_channels": self.base_channels, "limit": self.limit}


@dataclass(frozen=True)
class Plan:
    """How many images are used for training and scores; stored in plan.json.

    images: number of images that each network is trained on; limit: number of held-out
    images to score (None: all); judge_images: number of images that the feature
    classifier is trained on.
    """

    images: int
    limit: int | None
    judge_images: int
