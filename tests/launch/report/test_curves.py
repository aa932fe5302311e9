"""The report's charts, as values and drawn in a browser."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page

from launch.report.curves import make_chart, make_series
from launch.report.run_history import read_history


def test_many_points_are_averaged_with_a_band() -> None:
    series = make_series("l1", 0, [(x, float(x % 2)) for x in range(1200)])
    assert len(series["x"]) == 300
    assert series["x"][0] == 2  # the mean of 0, 1, 2 and 3 is 1.5
    assert (set(series["y"]), set(series["low"]), set(series["high"])) == ({0.5}, {0.0}, {1.0})


def test_missing_and_non_finite_values_are_left_out() -> None:
    series = make_series("l1", 0, [(0, 1.0), (1, None), (2, math.nan), (3, math.inf), (4, 2.0)])
    assert (series["x"], series["y"]) == ([0, 4], [1.0, 2.0])


def test_the_scale_is_logarithmic_if_positive_values_vary_widely() -> None:
    def is_log(*values: float) -> bool:
        points = make_series("loss", 0, enumerate(values))
        return bool(make_chart("Loss", [points], "losses")["log"])

    assert is_log(0.1, 2.1)
    assert not is_log(0.1, 2.0)
    assert not is_log(-0.1, 5.0)
    assert not is_log(0.0, 5.0)


def test_a_chart_is_read_without_a_mouse(open_page: Callable[[Path], Page], folder: Path) -> None:
    page = open_page(folder / "report.html")
    chart = page.locator(".chart", has_text="Reconstruction losses").first
    chart.locator("svg").focus()
    page.keyboard.press("ArrowLeft")
    last = read_history(folder / "one", "one").train[-1]
    assert chart.locator(".readout").inner_text() == f"24 images: l1 {last['losses']['l1']:.4g}"


def test_the_legend_hides_a_line(open_page: Callable[[Path], Page], folder: Path) -> None:
    page = open_page(folder / "both" / "report.html")
    chart = page.locator(".chart", has_text="Loss: l1").first
    assert chart.locator("path.curve").count() == 2
    chart.get_by_role("button", name="two").click()
    assert chart.locator("path.curve").count() == 1


def test_a_mark_shows_where_a_run_was_resumed(
    open_page: Callable[[Path], Page], folder: Path
) -> None:
    page = open_page(folder / "report.html")
    chart = page.locator(".chart", has_text="Reconstruction losses").first
    assert chart.locator("line.mark").count() == 1
    assert chart.locator("text", has_text="resumed").count() == 1
