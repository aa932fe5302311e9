"""The chart of a report."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from launch.benchmark.chart import draw_chart
from launch.benchmark.results import Row


def row(section: str, name: str, unit: str) -> Row:
    return Row(section=section, name=name, unit=unit, value=2.0, low=1.0, high=3.0)


def test_each_section_and_unit_has_axes_whose_height_grows_with_its_rows(tmp_path: Path) -> None:
    """0.3 inches per bar and 1 inch per axes, at 100 dots per inch."""
    rows = [row("a", "1", "s"), row("b", "2", "s"), row("a", "3", "MB"), row("a", "4", "s")]
    draw_chart(rows, tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as image:
        assert image.format == "PNG"
        assert image.size == (900, 100 * 3 + 30 * 4)
