"""The options of an experiment, and the numbers of images that it uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colortrain.scale_down import WITHOUT_DOWNLOADS, PretrainedWeights


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network of a table: a recipe, of which some fields may be changed.

    name: the name of its row and run folder; settings: assignments as for `colortrain
    train --set`, such as "generator.depth=2".
    """

    recipe: str
    name: str
    settings: tuple[str, ...] = ()


def unchanged(*recipes: str) -> tuple[Network, ...]:
    """Return networks of these recipes, without changed fields."""
    return tuple(Network(recipe=name, name=name) for name in recipes)


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """What is trained in an experiment, at which scale, and how it is scored.

    table: name of the table, such as "nampouri"; out: folder for all results; size:
    side of the images in pixels; base_channels: width of the networks, or None for the
    published width; limit: number of images to score, or None for all; weights:
    pretrained weights of the systems that need them; scoring: options of `colortrain
    evaluate` for metrics that need weights; stretch_schedules: whether schedules span
    the run; metrics: names of the metrics in the first columns; history: whether
    networks are validated ten times during training instead of once at the end;
    full_images: number of images of `--budget full`, or None for the recipes' epochs.
    """

    table: str
    out: Path
    networks: tuple[Network, ...]
    seeds: tuple[int, ...] = (0,)
    size: int
    base_channels: int | None = 16
    limit: int | None = None
    weights: PretrainedWeights = WITHOUT_DOWNLOADS
    scoring: tuple[str, ...] = ()
    stretch_schedules: bool = False
    metrics: tuple[str, ...] = ()
    history: bool = False
    full_images: int | None = None

    def shared(self) -> dict[str, Any]:
        """Return the options that all rows of the table share, for JSON."""
        # Networks and seeds only select rows.
        names = ("table", "size", "base_channels", "limit")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Plan:
    """How many images are used for training and for scores; stored in OUT/plan.json.

    images: number of images that each network is trained on, or None for the recipe's
    epochs; limit: number of held-out images to score (None: all); classifier_images:
    number of images that the feature classifier is trained on.
    """

    images: int | None
    limit: int | None
    classifier_images: int
