"""Draw the bar chart of a benchmark's report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launch.benchmark.results import Row
from shards.files import open_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAR, _GAP = 0.3, 1.0  # inches


def draw_chart(rows: Sequence[Row], path: Path) -> None:
    """Write a bar chart of a report's rows to `path` as a PNG file.

    A bar is as long as the row's median; a line on it extends from the row's minimum to
    its maximum. Rows of the same section and unit are drawn in the same axes.
    """
    # Imported here, because it needs a folder for its cache.
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys((row.section, row.unit) for row in rows))
    grouped = [[row for row in rows if (row.section, row.unit) == group] for group in groups]
    heights = [_GAP + _BAR * len(members) for members in grouped]
    figure = Figure(figsize=(9, sum(heights)), dpi=100, layout="constrained")
    all_axes = figure.subplots(len(groups), 1, height_ratios=heights, squeeze=False).flat
    for axes, (section, unit), members in zip(all_axes, groups, grouped, strict=True):
        _draw_bars(axes, members)
        axes.set_title(section, fontsize=10, loc="left")
        axes.set_xlabel(unit, fontsize=9)
    with open_atomic(path) as stream:
        figure.savefig(stream, format="png")


def _draw_bars(axes: Axes, rows: list[Row]) -> None:
    values = [row.value for row in rows]
    spread = [[row.value - row.low for row in rows], [row.high - row.value for row in rows]]
    axes.barh(range(len(rows)), values, xerr=spread, color="#4a7ba6", ecolor="#333", capsize=2)
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    for position, row in enumerate(rows):
        axes.annotate(
            f"{row.value:,.4g}",
            (row.high, position),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.spines[["top", "right"]].set_visible(False)
