"""The metric registry: directions, decimals, and agreement with what is computed."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from colortrain.metrics.image_metrics import PAIRED, PAIRED_SLOW, SINGLE, WITH_OWN_L
from colortrain.metrics.registry import METRICS, Metric, metric_named, ordered


@pytest.mark.parametrize(
    ("direction", "better", "worse"),
    [
        ("lower", (0.1, 0.5), (0.2, 0.5)),
        ("higher", (30.0, 0.5), (20.0, 0.5)),
        ("truth", (11.0, 10.0), (8.0, 10.0)),
        ("one", (0.9, 0.2), (1.2, 0.2)),
    ],
)
def test_a_better_value_has_a_smaller_distance(
    direction: str, better: tuple[float, float], worse: tuple[float, float]
) -> None:
    metric = Metric("m", "m", direction)  # type: ignore[arg-type]
    assert metric.distance(*better) < metric.distance(*worse)


def test_a_distance_from_the_truth_requires_the_truth() -> None:
    assert math.isnan(METRICS["sepia"].distance(0.5))
    assert METRICS["colourfulness_ratio"].distance(0.75) == 0.25
    assert METRICS["sepia"].distance(0.5, 0.25) == 0.25


def test_values_are_printed_with_the_decimals_of_the_metric() -> None:
    assert [METRICS[name].text(1.23456) for name in ("l1", "psnr", "mae")] == [
        "1.2346",
        "1.23",
        "1.23",
    ]
    assert METRICS["l1"].text(None) == ""


def test_metrics_too_slow_for_validation_are_marked() -> None:
    assert {name for name, metric in METRICS.items() if metric.needs == "time"} == set(PAIRED_SLOW)
    quick = {*PAIRED, *WITH_OWN_L, *SINGLE} & set(METRICS)
    assert all(METRICS[name].needs == "" for name in quick)


def test_each_metric_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "METRICS.md").read_text(encoding="utf-8")
    rows = {row.partition(" | ")[0] for row in text.splitlines() if row.startswith("| `")}
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(METRICS)


def test_unknown_names_have_no_direction() -> None:
    unknown = metric_named("sharpness")
    assert (unknown.label, unknown.symbol, unknown.text(0.5)) == ("sharpness", "", "0.5000")
    assert [metric.name for metric in ordered({"psnr", "sharpness", "l1"})] == ["l1", "psnr"]
