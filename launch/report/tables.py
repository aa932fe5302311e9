"""The report's tables: metrics beside grey, median, truth and the paper; runs beside each other; recipes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from colortrain.metrics.registry import METRICS, metric_named
from colortrain.metrics.score_tables import COLUMNS, HEAD, caption, compared_with_grayscale, notes
from colortrain.recipes import RECIPES, headline_of
from colortrain.serialize import to_plain
from launch.report.run_history import Story

METRIC_COLUMNS = (*HEAD[2:], "paper")
Cell = dict[str, Any]  # "text", and "value" where the column can be sorted by it


def cell(value: float | None, decimals: int) -> Cell:
    """A number as text with so many decimals, and as itself."""
    return {"text": "" if value is None else f"{value:,.{decimals}f}", "value": value}


def metric_rows(story: Story) -> list[dict[str, Any]]:
    """A row a metric: name, which way is better, and a cell for each of `METRIC_COLUMNS`."""
    paper = headline_of(story.recipe).values()
    rows = []
    for name, values in story.metrics.items():
        metric = metric_named(name)
        decimals = metric.decimals
        cells = [cell(values.get(column), decimals) for column in COLUMNS]
        cells[1:1] = [
            _interval(story, name, decimals),
            {"text": compared_with_grayscale(story.scores, name), "value": None},
        ]
        rows.append(
            {
                "name": metric.label,
                "better": metric.symbol,
                "cells": [*cells, cell(paper.get(name), decimals)],
            }
        )
    return rows


def _interval(story: Story, name: str, decimals: int) -> Cell:
    ends = story.scores.get("intervals", {}).get(name, {}).get("generated")
    text = " to ".join(f"{end:,.{decimals}f}" for end in ends) if ends else ""
    return {"text": text, "value": ends[1] - ends[0] if ends else None}


def below_metrics(story: Story) -> list[str]:
    """What intervals are, which networks judged, what was left out; a line each."""
    return notes(story.scores) if "protocol" in story.scores else []


def protocol(story: Story) -> str:
    """What the scores were measured on; empty where there are none."""
    if not {"protocol", "samples"} <= story.scores.keys():
        return ""
    return f"Step {story.scores.get('step', '?'):,}: {caption(story.scores)}."


def comparison(stories: Sequence[Story]) -> dict[str, Any]:
    """Runs in rows, grey, median and truth of each set of photographs too; metrics in columns."""
    metrics = [name for name in METRICS if any(name in story.metrics for story in stories)]
    columns = [{"label": METRICS[name].label, "better": METRICS[name].symbol} for name in metrics]
    rows = [
        {
            "name": story.name,
            "kind": "run",
            "cells": [*_pace(story), *_values(story, metrics, "generated")],
        }
        for story in stories
    ]
    return {"columns": columns, "rows": rows + _references(stories, metrics)}


def _pace(story: Story) -> list[Cell]:
    return [cell(story.images, 0), cell(story.seconds / 60, 1)]


def _values(story: Story, metrics: Sequence[str], version: str) -> list[Cell]:
    return [
        cell(story.metrics.get(name, {}).get(version), METRICS[name].decimals) for name in metrics
    ]


def _references(stories: Sequence[Story], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """One row of grey, median and truth for each set of photographs that was scored on."""
    firsts: dict[str, Story] = {}
    for story in stories:
        firsts.setdefault(_photographs(story), story)
    rows = []
    for photographs, story in firsts.items():
        where = f" ({photographs})" if len(firsts) > 1 else ""
        for version in COLUMNS[1:]:
            cells = _values(story, metrics, version)
            if any(each["text"] for each in cells):
                rows.append(
                    {
                        "name": version + where,
                        "kind": "reference",
                        "cells": [cell(None, 0)] * 2 + cells,
                    }
                )
    return rows


def _photographs(story: Story) -> str:
    asked = story.scores.get("protocol", {})
    return f"{asked.get('dataset_id', '?')}/{asked.get('split', '?')}, {story.scores.get('samples', 0):,}"


def recipe_rows(story: Story) -> list[dict[str, Any]]:
    """Every field of the recipe, with the published value where that is another; changed fields come first."""
    mine = flat(to_plain(story.recipe))
    make = RECIPES.get(story.recipe.name)
    published = flat(to_plain(make())) if make else {}
    rows = [
        {"field": name, "value": value, "published": _other(name, value, published)}
        for name, value in mine.items()
    ]
    return sorted(rows, key=lambda row: row["published"] is None)


def _other(name: str, value: str, published: dict[str, str]) -> str | None:
    if not published or published.get(name) == value:
        return None
    return published.get(name, "not there")


def flat(plain: Any, prefix: str = "") -> dict[str, str]:
    """Nested plain values as dotted fields, the names that `--set` takes, to text."""
    if isinstance(plain, dict):
        parts = [flat(value, f"{prefix}{name}.") for name, value in plain.items()]
    elif isinstance(plain, list | tuple) and any(isinstance(value, dict) for value in plain):
        parts = [flat(value, f"{prefix}{number}.") for number, value in enumerate(plain)]
    else:
        return {prefix.rstrip("."): "none" if plain is None else str(plain)}
    return {name: value for part in parts for name, value in part.items()}
