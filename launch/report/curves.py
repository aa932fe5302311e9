"""Curves of one run or several, as plain values that the page's script draws: x is images seen.

One run: its losses share charts. Several: a chart a loss, a line a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from colortrain.metrics.registry import METRICS
from colortrain.training.alarms import SEPIA, WAIT
from launch.report.run_history import Line, Story

Chart = dict[str, Any]
Series = dict[str, Any]

_FIRST = (
    "l1",
    "psnr",
    "colourfulness_ratio",
    "fid",
    "bright_spots",
    "sepia",
)  # metrics that are shown at once
_POINTS = 300  # a line: more are averaged in so many stretches, with the least and the greatest as a pale band
_GAME = ("critic", "generator", "adversarial")


def charts_of(stories: Sequence[Story]) -> list[Chart]:
    """All charts in the order of the page; those without a point are left out."""
    losses = _losses_of_one(stories[0]) if len(stories) == 1 else _losses_of_many(stories)
    charts = [*losses, *_metrics(stories), *_machine(stories)]
    marks = _marks(stories[0]) if len(stories) == 1 else []
    charts = [{**each, "marks": marks} for each in charts]
    return [chart for chart in charts if any(len(series["x"]) for series in chart["series"])]


def _marks(story: Story) -> list[dict[str, Any]]:
    """Where a run went on, by how the start before had ended."""
    words = {"killed": "killed", "stopped": "stopped", "finished": "went on", "open": "killed"}
    return [
        {"x": after.first, "name": words[before.how]}
        for before, after in pairwise(story.sessions)
        if after.last > after.first
    ]


def chart(title: str, series: Iterable[Series], group: str, **more: Any) -> Chart:
    """One chart; `more`: `rules` (horizontal lines with names), `note`, `percent`."""
    kept = [one for one in series if len(one["x"])]
    values = [value for one in kept for value in one["y"]]
    positive = [value for value in values if value > 0]
    log = bool(values) and len(positive) == len(values) and max(values) > 20 * min(values)
    return {"title": title, "group": group, "series": kept, "log": log, "rules": [], **more}


def line(
    name: str, colour: int, points: Iterable[tuple[float, float | None]], dashed: bool = False
) -> Series:
    """A named line; `colour` counts from 0, -1 is grey."""
    found = np.array(
        [(x, y) for x, y in points if y is not None and np.isfinite(y)], float
    ).reshape(-1, 2)
    return {"name": name, "colour": colour, "dashed": dashed, **_thinned(found)}


def _thinned(points: np.ndarray) -> dict[str, list[float]]:
    if len(points) <= _POINTS:
        return {"x": points[:, 0].tolist(), "y": _short(points[:, 1])}
    parts = np.array_split(points, _POINTS)
    band = {
        "low": _short([part[:, 1].min() for part in parts]),
        "high": _short([part[:, 1].max() for part in parts]),
    }
    means = np.array([part.mean(0) for part in parts])
    return {"x": means[:, 0].round().tolist(), "y": _short(means[:, 1]), **band}


def _short(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _loss_points(lines: Sequence[Line], name: str) -> list[tuple[float, float | None]]:
    return [(each["images"], each.get("losses", {}).get(name)) for each in lines]


def _field_points(lines: Sequence[Line], name: str) -> list[tuple[float, float | None]]:
    group, _, field = name.rpartition("/")
    return [(each["images"], (each.get(group, {}) if group else each).get(field)) for each in lines]


def _loss_names(stories: Sequence[Story]) -> list[str]:
    names = {name for story in stories for each in story.train for name in each.get("losses", {})}
    order = {name: place for place, name in enumerate(("l1", *_GAME))}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def _losses_of_one(story: Story) -> list[Chart]:
    names = _loss_names([story])
    penalties = {penalty.name for penalty in story.recipe.objective.penalties}
    scores = [name for name in names if name.startswith("score_")]
    game = [name for name in names if name in _GAME or name in penalties]
    rest = [name for name in names if name not in game and name not in scores]
    groups = {
        "Reconstruction losses, unweighted": rest,
        "The adversarial game": game,
        "What the critic says: mean scores": scores,
    }
    return [
        chart(
            title,
            [line(name, i, _loss_points(story.train, name)) for i, name in enumerate(members)],
            "losses",
        )
        for title, members in groups.items()
    ]


def _losses_of_many(stories: Sequence[Story]) -> list[Chart]:
    return [
        chart(
            f"Loss: {name}",
            [
                line(story.name, i, _loss_points(story.train, name))
                for i, story in enumerate(stories)
            ],
            "losses",
        )
        for name in _loss_names(stories)
    ]


def _metrics(stories: Sequence[Story]) -> list[Chart]:
    """Held-out metrics: the runs', and grey, median and truth of the first run that has them."""
    return [
        _metric(stories, name) for name in dict.fromkeys((*_FIRST, *METRICS)) if name in METRICS
    ]


def _metric(stories: Sequence[Story], name: str) -> Chart:
    metric = METRICS[name]
    single = len(stories) == 1
    series = [
        line("generated" if single else story.name, i, _metric_points(story, name, "generated"))
        for i, story in enumerate(stories)
    ]
    references = (
        ("truth", "median") if name == "colourfulness_ratio" else ("grey", "median", "truth")
    )
    rules = [
        {"y": value, "name": v}
        for v in references
        if (value := _reference(stories, name, v)) is not None
    ]
    if name == "colourfulness_ratio":
        rules += [{"y": 1.0, "name": "truth"}, {"y": SEPIA, "name": "sepia below"}]
    return chart(
        metric.label,
        series,
        "metrics" if name in _FIRST else "more",
        note=metric.symbol,
        rules=rules,
    )


def _metric_points(story: Story, name: str, version: str) -> list[tuple[float, float | None]]:
    return [
        (each["images"], each.get("metrics", {}).get(name, {}).get(version))
        for each in story.validation
    ]


def _reference(stories: Sequence[Story], name: str, version: str) -> float | None:
    """The value that does not move with training, if all runs were scored on the same photographs."""
    values = {story.metrics.get(name, {}).get(version) for story in stories} - {None}
    return values.pop() if len(values) == 1 else None


def _machine(stories: Sequence[Story]) -> list[Chart]:
    fields: dict[str, tuple[str, dict[str, Any]]] = {
        "images_per_second": ("Images a second", {}),
        "data_wait": (
            "Waiting for data, share of time",
            {"rules": [{"y": WAIT, "name": "too slow"}], "log": False},
        ),
        "gradient_norms/generator": ("Norm of the generator's gradients", {}),
        "gradient_norms/critic": ("Norm of the critic's gradients", {}),
        "lr": ("Learning rate of the generator", {}),
    }
    single = len(stories) == 1
    charts = []
    for name, (title, more) in fields.items():
        series = [
            line(title.split(",")[0] if single else story.name, i, _field_points(story.train, name))
            for i, story in enumerate(stories)
        ]
        charts.append(chart(title, series, "machine", **more))
    return charts
