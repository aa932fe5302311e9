"""The report's tables: metrics of a run, a comparison of runs, and recipes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from colortrain.metrics.registry import METRICS, metric_named
from colortrain.metrics.score_tables import (
    COLUMNS,
    HEAD,
    LABELS,
    caption,
    compared_with_grayscale,
    has_caption,
    notes,
)
from colortrain.recipes import RECIPES, headline_of
from colortrain.serialize import to_plain
from launch.report.run_history import RunHistory

# The other column headings are in page/page.html.
METRIC_COLUMNS = (*HEAD[2:], "paper")
Cell = dict[str, Any]  # {"text": ..., "value": the number by which the column is sorted, or None}


def cell(value: float | None, decimals: int, deviation: float | None = None) -> Cell:
    """Return a table cell with a number of `decimals` places, or empty for None.

    If there is a standard deviation, it follows the number, after "±".
    """
    text = "" if value is None else f"{value:,.{decimals}f}"
    if text and deviation is not None:
        text += f" ± {deviation:,.{decimals}f}"
    return {"text": text, "value": value}


def metric_rows(history: RunHistory) -> list[dict[str, Any]]:
    """Return one row per metric of a run, with a cell for each of `METRIC_COLUMNS`."""
    paper = headline_of(history.recipe).values()
    rows = []
    for name, values in history.metrics.items():
        metric = metric_named(name)
        decimals = metric.decimals
        spreads = history.deviations.get(name, {})
        cells = [cell(values.get(v), decimals, spreads.get(v)) for v in COLUMNS]
        cells[1:1] = [
            _interval(history, name, decimals),
            {"text": compared_with_grayscale(history.scores, name), "value": None},
        ]
        rows.append(
            {
                "name": metric.label,
                "better": metric.symbol,
                "cells": [*cells, cell(paper.get(name), decimals)],
            }
        )
    return rows


def _interval(history: RunHistory, name: str, decimals: int) -> Cell:
    """Return the cell with the 95 % confidence interval of a metric."""
    ends = history.scores.get("intervals", {}).get(name, {}).get("generated")
    # The page sorts the column by the width of the interval.
    text = " to ".join(f"{end:,.{decimals}f}" for end in ends) if ends else ""
    return {"text": text, "value": ends[1] - ends[0] if ends else None}


def metric_notes(history: RunHistory) -> list[str]:
    """Return the notes below the table of metrics."""
    return notes(history.scores) if has_caption(history.scores) else []


def protocol(history: RunHistory) -> str:
    """Return the caption of the table of metrics, "" if the run has no scores."""
    if "step" not in history.scores or not has_caption(history.scores):
        return ""
    return f"Step {history.scores['step']:,}: {caption(history.scores)}."


def comparison(histories: Sequence[RunHistory]) -> dict[str, Any]:
    """Return a table with a row for each run and baseline, and metrics as columns."""
    metrics = [name for name in METRICS if any(name in history.metrics for history in histories)]
    columns = [{"label": METRICS[name].label, "better": METRICS[name].symbol} for name in metrics]
    rows = [
        {
            "name": history.name,
            "kind": "run",
            "cells": [*_length(history), *_scores(history, metrics, "generated")],
        }
        for history in histories
    ]
    return {"columns": columns, "rows": rows + _baselines(histories, metrics)}


def _length(history: RunHistory) -> list[Cell]:
    return [cell(history.images, 0), cell(history.seconds / 60, 1)]


def _scores(history: RunHistory, metrics: Sequence[str], version: str) -> list[Cell]:
    return [
        cell(
            history.metrics.get(name, {}).get(version),
            METRICS[name].decimals,
            history.deviations.get(name, {}).get(version),
        )
        for name in metrics
    ]


def _baselines(histories: Sequence[RunHistory], metrics: Sequence[str]) -> list[dict[str, Any]]:
    # One group of rows for each set of photographs on which runs were scored.
    first_with: dict[str, RunHistory] = {}
    for history in histories:
        first_with.setdefault(_photographs(history), history)
    rows = []
    for photographs, history in first_with.items():
        suffix = f" ({photographs})" if len(first_with) > 1 else ""
        for version in COLUMNS[1:]:
            cells = _scores(history, metrics, version)
            if any(each["text"] for each in cells):
                rows.append(
                    {
                        "name": LABELS[version] + suffix,
                        "kind": "baseline",
                        "cells": [cell(None, 0)] * 2 + cells,
                    }
                )
    return rows


def _photographs(history: RunHistory) -> str:
    """Return a text that identifies the photographs on which a run was scored."""
    scored = history.scores.get("protocol", {})
    samples = history.scores.get("samples", 0)
    return f"{scored.get('dataset_id', '?')}/{scored.get('split', '?')}, {samples:,}"


def recipe_rows(history: RunHistory) -> list[dict[str, Any]]:
    """Return one row, {"field", "value", "published"}, for each field of the recipe.

    Fields that differ from the published recipe come first, with the published value or
    "absent". In the other rows, "published" is None.
    """
    fields = flatten(to_plain(history.recipe))
    make = RECIPES.get(history.recipe.name)
    published = flatten(to_plain(make())) if make else {}
    rows = [
        {"field": name, "value": value, "published": _published(name, value, published)}
        for name, value in fields.items()
    ]
    return sorted(rows, key=lambda row: row["published"] is None)


def _published(name: str, value: str, published: dict[str, str]) -> str | None:
    if not published or published.get(name) == value:
        return None
    return published.get(name, "absent")


def flatten(plain: Any, prefix: str = "") -> dict[str, str]:
    """Return the values in nested dicts and lists as one dict: field name -> text.

    Names are joined by dots: {"critic": {"depth": 3}} becomes {"critic.depth": "3"}.
    """
    if isinstance(plain, dict):
        parts = [flatten(value, f"{prefix}{name}.") for name, value in plain.items()]
    elif isinstance(plain, list | tuple) and any(isinstance(value, dict) for value in plain):
        parts = [flatten(value, f"{prefix}{number}.") for number, value in enumerate(plain)]
    else:
        return {prefix.rstrip("."): "none" if plain is None else str(plain)}
    return {name: value for part in parts for name, value in part.items()}
