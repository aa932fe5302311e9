"""The data of the report's charts, with the number of images seen as x axis.

For one run, related losses share a chart. For several runs, there is one chart per
loss, with a line for each run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from colortrain.metrics.registry import METRICS
from colortrain.metrics.score_tables import LABELS
from colortrain.training.alarms import SEPIA, WAIT
from launch.report.run_history import Line, RunHistory

Chart = dict[str, Any]
Series = dict[str, Any]
Points = list[tuple[float, float | None]]  # (images seen, value)

# The metrics that are always visible; the others are shown by "More metrics".
_MAIN_METRICS = ("l1", "psnr", "colourfulness_ratio", "fid", "bright_spots", "sepia")
# The largest number of points per line. More points are averaged in this many groups,
# with a band from the least to the greatest value.
_MAX_POINTS = 300
_ADVERSARIAL = ("critic", "generator", "adversarial")
_MARKS = {"killed": "killed", "stopped": "stopped", "finished": "resumed", "open": "killed"}


def make_charts(histories: Sequence[RunHistory]) -> list[Chart]:
    """Return the data of all charts of the report, in the order of the page."""
    single = len(histories) == 1
    losses = _losses_of_one(histories[0]) if single else _losses_of_many(histories)
    charts = [*losses, *_metrics(histories), *_machine(histories)]
    marks = _marks(histories[0]) if single else []
    charts = [{**each, "marks": marks} for each in charts]
    return [chart for chart in charts if any(len(series["x"]) for series in chart["series"])]


def _marks(history: RunHistory) -> list[dict[str, Any]]:
    """Return a mark on the x axis for each time that training was resumed."""
    return [
        {"x": after.first, "name": _MARKS[before.end]}
        for before, after in pairwise(history.sessions)
        if after.last > after.first
    ]


def make_chart(title: str, series: Iterable[Series], group: str, **options: Any) -> Chart:
    """Return the data of a chart as a dict for the script in the page.

    group: the section of the page that shows the chart; options: replace fields of the
    dict, such as `rules` (horizontal lines with names), `note` (a short text) and `log`
    (whether the y axis is logarithmic).
    """
    kept = [one for one in series if len(one["x"])]
    values = [value for one in kept for value in one["y"]]
    positive = [value for value in values if value > 0]
    log = bool(values) and len(positive) == len(values) and max(values) > 20 * min(values)
    return {"title": title, "group": group, "series": kept, "log": log, "rules": [], **options}


def make_series(name: str, colour: int, points: Iterable[tuple[float, float | None]]) -> Series:
    """Return the data of a line in a chart as a dict for the script in the page.

    colour: the number of the line's colour in the page's list of colours. Points
    without a finite value are left out.
    """
    finite = [(x, y) for x, y in points if y is not None and np.isfinite(y)]
    return {"name": name, "colour": colour, **_thinned(np.array(finite, float).reshape(-1, 2))}


def _thinned(points: np.ndarray) -> dict[str, list[float]]:
    """Return points, (N, 2), as a dict of lists of at most 300 values."""
    if len(points) <= _MAX_POINTS:
        return {"x": points[:, 0].tolist(), "y": _rounded(points[:, 1])}
    parts = np.array_split(points, _MAX_POINTS)
    band = {
        "low": _rounded([part[:, 1].min() for part in parts]),
        "high": _rounded([part[:, 1].max() for part in parts]),
    }
    means = np.array([part.mean(0) for part in parts])
    return {"x": means[:, 0].round().tolist(), "y": _rounded(means[:, 1]), **band}


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _loss_points(lines: Sequence[Line], name: str) -> Points:
    return [(each["images"], each.get("losses", {}).get(name)) for each in lines]


def _field_points(lines: Sequence[Line], name: str) -> Points:
    group, _, field = name.rpartition("/")
    return [(each["images"], (each.get(group, {}) if group else each).get(field)) for each in lines]


def _loss_names(histories: Sequence[RunHistory]) -> list[str]:
    names = {
        name for history in histories for each in history.train for name in each.get("losses", {})
    }
    order = {name: place for place, name in enumerate(("l1", *_ADVERSARIAL))}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def _losses_of_one(history: RunHistory) -> list[Chart]:
    names = _loss_names([history])
    penalties = {penalty.name for penalty in history.recipe.objective.penalties}
    scores = [name for name in names if name.startswith("score_")]
    adversarial = [name for name in names if name in _ADVERSARIAL or name in penalties]
    rest = [name for name in names if name not in adversarial and name not in scores]
    groups = {
        "Reconstruction losses, unweighted": rest,
        "Adversarial losses and penalties": adversarial,
        "Critic's mean scores": scores,
    }
    charts = []
    for title, members in groups.items():
        series = [
            make_series(name, i, _loss_points(history.train, name))
            for i, name in enumerate(members)
        ]
        charts.append(make_chart(title, series, "losses"))
    return charts


def _losses_of_many(histories: Sequence[RunHistory]) -> list[Chart]:
    charts = []
    for name in _loss_names(histories):
        series = [
            make_series(history.name, i, _loss_points(history.train, name))
            for i, history in enumerate(histories)
        ]
        charts.append(make_chart(f"Loss: {name}", series, "losses"))
    return charts


def _metrics(histories: Sequence[RunHistory]) -> list[Chart]:
    names = dict.fromkeys((*_MAIN_METRICS, *METRICS))
    return [_metric(histories, name) for name in names if name in METRICS]


def _metric(histories: Sequence[RunHistory], name: str) -> Chart:
    """Return the chart of one metric, with the baselines as horizontal lines."""
    metric = METRICS[name]
    single = len(histories) == 1
    series = [
        make_series(
            LABELS["generated"] if single else history.name,
            i,
            _metric_points(history, name, "generated"),
        )
        for i, history in enumerate(histories)
    ]
    is_ratio = name == "colourfulness_ratio"
    versions = ("truth", "median") if is_ratio else ("grey", "median", "truth")
    rules = [
        {"y": value, "name": LABELS[version]}
        for version in versions
        if (value := _baseline(histories, name, version)) is not None
    ]
    if is_ratio:
        rules += [{"y": 1.0, "name": LABELS["truth"]}, {"y": SEPIA, "name": "sepia threshold"}]
    group = "metrics" if name in _MAIN_METRICS else "more"
    return make_chart(metric.label, series, group, note=metric.symbol, rules=rules)


def _metric_points(history: RunHistory, name: str, version: str) -> Points:
    return [
        (each["images"], each.get("metrics", {}).get(name, {}).get(version))
        for each in history.validation
    ]


def _baseline(histories: Sequence[RunHistory], name: str, version: str) -> float | None:
    """Return the value of a baseline if it is the same for all runs, otherwise None."""
    # They differ if the runs were scored on different photographs.
    values = {history.metrics.get(name, {}).get(version) for history in histories} - {None}
    return values.pop() if len(values) == 1 else None


def _machine(histories: Sequence[RunHistory]) -> list[Chart]:
    """Return the charts of speed, waiting for data, gradient norm and learning rate."""
    fields: dict[str, tuple[str, dict[str, Any]]] = {
        "images_per_second": ("Images per second", {}),
        "data_wait": (
            "Waiting for data, fraction of time",
            {"rules": [{"y": WAIT, "name": "too slow"}], "log": False},
        ),
        "gradient_norms/generator": ("Gradient norm of the generator", {}),
        "gradient_norms/critic": ("Gradient norm of the critic", {}),
        "lr": ("Learning rate of the generator", {}),
    }
    single = len(histories) == 1
    charts = []
    for name, (title, options) in fields.items():
        series = [
            make_series(
                title.split(",")[0] if single else history.name,
                i,
                _field_points(history.train, name),
            )
            for i, history in enumerate(histories)
        ]
        charts.append(make_chart(title, series, "machine", **options))
    return charts
