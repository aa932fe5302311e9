"""What was asked for, and what was decided."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The words of the door, but for the budget; `base_channels` None is each recipe's own width."""

    table: str
    source: Path
    out: Path
    recipes: tuple[str, ...]
    seeds: tuple[int, ...]
    base_channels: int | None
    limit: int | None

    def plain(self) -> dict[str, Any]:
        """What all rows of a table have in common, for JSON; recipes and seeds only say which rows."""
        return {"table": self.table, "base_channels": self.base_channels, "limit": self.limit}


@dataclass(frozen=True)
class Plan:
    """How many images each network sees; `limit` is of held-out pictures, None for all."""

    images: int
    limit: int | None
    judge_images: int
