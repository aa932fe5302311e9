"""Checks of a benchmark's report in JSON."""

from __future__ import annotations

from typing import Any

from launch.benchmark.machine import PACKAGES


def check_report(document: dict[str, Any]) -> None:
    """Check that medians are between their extremes, and which goals are met."""
    for entry in [*document["rows"], *document["goals"]]:
        assert 0 < entry["low"] <= entry["value"] <= entry["high"], entry
    for goal in document["goals"]:
        met = goal["value"] <= goal["goal"] if goal["at_most"] else goal["value"] >= goal["goal"]
        assert goal["met"] == met
    assert set(document["machine"]["versions"]) == set(PACKAGES)
